-- Take an open operation over under a new epoch. KEYS: lease, op. ARGV: epoch. Returns 1, or 0 if stale.
if not in_charge(KEYS[1], ARGV[1]) then return 0 end
if redis.call('HGET', KEYS[2], 'state') == 'open' then redis.call('HSET', KEYS[2], 'epoch', ARGV[1]) end
return 1
