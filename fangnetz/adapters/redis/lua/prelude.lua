-- Put before every script. Numbers travel as strings: Lua prints large ones in exponent form.
local function text(number) return string.format('%.0f', number) end
local function number(value) return tonumber(value or '0') or 0 end
-- The store's clock in whole microseconds; no other machine's clock counts. Redis TIME, moved ahead by what it was ever
-- set back, so that it never runs backwards: not when a machine's clock is corrected, and not when a replica takes over
-- whose clock is slower. What was read or heard later is later, and a lease does not last longer for it.
-- The key `clock` has the tag of all others; each script reads and writes it. What stands in it and is no whole number,
-- or lies ten years away, was written by nobody of us and counts as nothing.
local SANE_US = 315360000000000
local function count(value) return value and value:match('^%d+$') and number(value) or 0 end
local clock = KEYS[1]:match('^fn:{.-}:') .. 'clock'
-- An instant that this clock has shown before, also in an earlier life: it goes on from there (meet, put_ledger).
local function go_on_after(instant)
  if instant > count(redis.call('HGET', clock, 'latest')) then redis.call('HSET', clock, 'latest', text(instant)) end
end
local function now_us()
  local t = redis.call('TIME')
  local known = redis.call('HMGET', clock, 'ahead', 'latest')
  local ahead, latest = count(known[1]), count(known[2])
  if ahead > SANE_US then ahead = 0 end
  local now = tonumber(t[1]) * 1000000 + tonumber(t[2]) + ahead
  if latest > now + SANE_US then latest = 0 end
  if now <= latest then
    if latest - now > 1000000 then redis.call('HSET', clock, 'ahead', text(ahead + latest - now)) end
    now = latest + 1
  end
  redis.call('HSET', clock, 'latest', text(now))
  return now
end
-- Next epoch, generation or version: greater than all seen, and never one that a rolled-back store hands out again.
local function next_number(a, b)
  return math.max(number(a) + 1, number(b) + 1, now_us())
end
-- Which memory this is: the server's run id and its replication id. Another process, an emptied one, a promoted replica
-- and a master that was demoted in between all say something else. Asked of the server itself, never told by a caller.
local function memory()
  return redis.call('INFO', 'server'):match('run_id:(%w+)') .. ':' ..
    redis.call('INFO', 'replication'):match('master_replid:(%w+)')
end
-- The control lease must be at `epoch` and given in this very memory, or the caller is no longer in charge.
local function in_charge(lease_key, epoch)
  local lease = redis.call('HMGET', lease_key, 'epoch', 'memory')
  return lease[1] == epoch and lease[2] == memory()
end
