-- Write down that steps were sent on their way. KEYS: steps. A step that is not there (any more) is not made by it.
-- No epoch: it changes no state; at worst the sweep sends a step one step lease later.
local now = text(now_us())
for i = 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('HSET', KEYS[i], 'dispatched', now) end
end
return #KEYS
