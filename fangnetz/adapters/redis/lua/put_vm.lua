-- Write a VM's record. KEYS: lease, vm, vms. ARGV: epoch, expected generation ('' = no record yet), vm, field, value, ...
-- Returns 1 written, 0 stale epoch, -1 the generation has moved on.
if not in_charge(KEYS[1], ARGV[1]) then return 0 end
local generation = redis.call('HGET', KEYS[2], 'generation')
if ARGV[2] == '' then
  if generation then return -1 end
elseif generation ~= ARGV[2] then
  return -1
end
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
redis.call('SADD', KEYS[3], ARGV[3])
return 1
