-- Drop a VM's record. KEYS: lease, vm, vms. ARGV: epoch, vm. Returns 1, or 0 if stale.
if not in_charge(KEYS[1], ARGV[1]) then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SREM', KEYS[3], ARGV[2])
return 1
