-- Put before every script. Time is Redis TIME in whole microseconds; it never comes from a caller.
-- Numbers travel as strings: Lua prints large ones in exponent form.
local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end
local function text(number) return string.format('%.0f', number) end
local function number(value) return tonumber(value or '0') or 0 end
-- Next epoch, generation or version: greater than all seen, and never one that a rolled-back store hands out again.
local function next_number(a, b)
  return math.max(number(a) + 1, number(b) + 1, now_us())
end
-- The control lease must be at `epoch`, or the caller is no longer in charge.
local function in_charge(lease_key, epoch)
  return redis.call('HGET', lease_key, 'epoch') == epoch
end
