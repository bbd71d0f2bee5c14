-- Answer a wish once. KEYS: lease, wishes, result. ARGV: epoch, wish id, result (JSON), ttl in s.
-- Returns 1, 0 if answered before, -1 if stale: an answer from an old view would take the wish away from whoever is in
-- charge, while the record or document that was to carry it out is refused as too old.
if not in_charge(KEYS[1], ARGV[1]) then return -1 end
if redis.call('HDEL', KEYS[2], ARGV[2]) == 0 then return 0 end
redis.call('SET', KEYS[3], ARGV[3], 'EX', ARGV[4])
return 1
