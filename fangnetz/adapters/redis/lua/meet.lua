-- Register the life of this store. KEYS: life, lease. Returns {incarnation, since_us}.
-- Another memory begins a new life: the control lease is dropped and rests for one TTL (SAFETY rule 4).
-- No epoch: it is what comes before every lease, and meeting the same memory again changes nothing.
local known = redis.call('HMGET', KEYS[1], 'run_id', 'incarnation', 'since')
local here = memory()
if known[1] == here then return {known[2], known[3]} end
local now = text(now_us())
redis.call('HSET', KEYS[1], 'run_id', here, 'incarnation', now, 'since', now)
redis.call('HDEL', KEYS[2], 'holder', 'until', 'memory')
return {now, now}
