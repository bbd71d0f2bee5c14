-- Register the life of this store. KEYS: life, lease. ARGV: run id (with replication id).
-- A new run id begins a new life: the control lease is dropped and rests for one TTL (SAFETY rule 4).
-- So does a clock set back to before this life began: until it had caught up, no report would count as heard in it.
-- Returns {incarnation, since_us}.
local known = redis.call('HMGET', KEYS[1], 'run_id', 'incarnation', 'since')
if known[1] == ARGV[1] and number(known[3]) <= now_us() then return {known[2], known[3]} end
local now = text(now_us())
redis.call('HSET', KEYS[1], 'run_id', ARGV[1], 'incarnation', now, 'since', now)
redis.call('HDEL', KEYS[2], 'holder', 'until')
return {now, now}
