-- Change a VM's state and reason while its generation is still this one. KEYS: vm.
-- ARGV: generation, state, reason. Returns 1, or 0 if the generation has moved on.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 0 end
local old = redis.call('HGET', KEYS[1], 'state')
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'reason', ARGV[3])
if old ~= ARGV[2] then redis.call('HSET', KEYS[1], 'since', text(now_us())) end
return 1
