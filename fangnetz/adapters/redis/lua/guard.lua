-- Shared by claim and renew: everything that must hold right before an effect (SAFETY rule 3). Returns nil or a code.
-- keys: lease, life, op, step, vm (or any other key when the step has no order). me: incarnation of the executor's boot.
local function obstacle(lease_key, life_key, op_key, step_key, vm_key, me, now)
  local life = redis.call('HMGET', life_key, 'incarnation', 'run_id')
  if life[2] ~= memory() then return 'life' end  -- nobody has met this memory yet: it may be old, and knows nothing
  local op = redis.call('HMGET', op_key, 'state', 'epoch')
  if not op[1] then return 'gone' end
  if op[1] ~= 'open' then return 'closed' end
  if not in_charge(lease_key, op[2]) then return 'epoch' end
  local step = redis.call('HMGET', step_key, 'state', 'kind', 'o_vm', 'o_host', 'o_incarnation', 'o_generation',
    'o_life', 'o_deadline')
  if not step[1] then return 'gone' end
  if step[1] ~= 'ready' and step[1] ~= 'running' then return 'settled' end
  if step[2] ~= 'start_vm' and step[2] ~= 'stop_vm' and step[2] ~= 'pause_vm' then return nil end
  if number(step[8]) <= now then return 'deadline' end
  if step[7] ~= life[1] then return 'life' end
  if step[5] ~= me then return 'incarnation' end
  if step[2] == 'start_vm' then
    local vm = redis.call('HMGET', vm_key, 'owner', 'owner_incarnation', 'generation')
    if vm[1] ~= step[4] or vm[2] ~= step[5] or vm[3] ~= step[6] then return 'generation' end
  end
  return nil
end
