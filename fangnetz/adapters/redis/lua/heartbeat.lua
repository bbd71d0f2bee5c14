-- Write a host's report. KEYS: hb. ARGV: incarnation, sequence, document (JSON). Returns the receive time in us.
-- An older sequence of the same boot and worker (a message that was delayed) changes nothing.
local old = redis.call('HMGET', KEYS[1], 'incarnation', 'sequence')
if old[1] == ARGV[1] and number(old[2]) >= number(ARGV[2]) then return redis.call('HGET', KEYS[1], 'at') end
local now = text(now_us())
redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], 'sequence', ARGV[2], 'at', now, 'doc', ARGV[3])
return now
