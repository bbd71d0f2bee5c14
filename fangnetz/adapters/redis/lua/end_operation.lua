-- Close an operation from outside. KEYS: lease, op, open index, closed index. ARGV: epoch, id, state, sentence.
-- Returns 1 closed (or closed before), 0 stale epoch.
if not in_charge(KEYS[1], ARGV[1]) then return 0 end
if redis.call('HGET', KEYS[2], 'state') ~= 'open' then return 1 end
redis.call('HSET', KEYS[2], 'state', ARGV[3], 'closed', text(now_us()), 'sentence', ARGV[4])
redis.call('HDEL', KEYS[3], redis.call('HGET', KEYS[2], 'index'))
redis.call('ZADD', KEYS[4], text(now_us()), ARGV[2])
return 1
