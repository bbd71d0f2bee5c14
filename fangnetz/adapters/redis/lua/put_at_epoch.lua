-- Write a plain document under the control lease. KEYS: lease, target. ARGV: epoch, document. Returns 1, or 0 if stale.
if not in_charge(KEYS[1], ARGV[1]) then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
