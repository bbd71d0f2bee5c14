-- Give the control lease back at once on an orderly stop. KEYS: lease. ARGV: controller.
-- No epoch: only who holds the lease now gives it back.
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('HSET', KEYS[1], 'until', '0') end
return 1
