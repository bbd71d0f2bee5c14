-- Register the life of this store. KEYS: life, lease. ARGV: the latest instant its caller read from it, in us, or 0.
-- Returns {incarnation, since_us}. A new life goes on after that instant, though its machine's clock was set back: what
-- was given a number before is never given a lower one.
-- Another memory begins a new life: the control lease is dropped and rests for one TTL (SAFETY rule 4).
-- No epoch: it is what comes before every lease, and meeting the same memory again changes nothing.
local known = redis.call('HMGET', KEYS[1], 'run_id', 'incarnation', 'since')
local here = memory()
if known[1] == here then return {known[2], known[3]} end
go_on_after(count(ARGV[1]))
local now = text(now_us())
redis.call('HSET', KEYS[1], 'run_id', here, 'incarnation', now, 'since', now)
redis.call('HDEL', KEYS[2], 'holder', 'until', 'memory')
return {now, now}
