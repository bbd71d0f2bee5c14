-- Change a VM's state and reason while its generation is still this one. KEYS: lease, vm.
-- ARGV: epoch, generation, state, reason. Returns 1, 0 if the generation has moved on, -1 if stale: within one generation a
-- VM may have been stopped or seen again, and `needs_person` or `running` from an old view would keep it down or start it.
if not in_charge(KEYS[1], ARGV[1]) then return -1 end
if redis.call('HGET', KEYS[2], 'generation') ~= ARGV[2] then return 0 end
local old = redis.call('HGET', KEYS[2], 'state')
redis.call('HSET', KEYS[2], 'state', ARGV[3], 'reason', ARGV[4])
if old ~= ARGV[3] then redis.call('HSET', KEYS[2], 'since', text(now_us())) end
return 1
