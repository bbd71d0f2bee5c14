-- Answer a wish once. KEYS: wishes, result. ARGV: wish id, result (JSON), ttl in s. Returns 1, or 0 if answered before.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
