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
    'o_life', 'o_deadline', 'o_to_host', 'o_to_incarnation', 'o_to_generation')
  if not step[1] then return 'gone' end
  if step[1] ~= 'ready' and step[1] ~= 'running' then return 'settled' end
  local kind = step[2]
  local at_a_host = { start_vm = 1, stop_vm = 1, pause_vm = 1, prepare_vm = 1, migrate_vm = 1, resume_vm = 1 }
  if not at_a_host[kind] then return nil end
  -- A migration has to begin by its deadline; how long it may take its executor judges by how it comes on.
  if number(step[8]) <= now and not (kind == 'migrate_vm' and step[1] == 'running') then return 'deadline' end
  if step[7] ~= life[1] then return 'life' end
  if step[5] ~= me then return 'incarnation' end
  if kind == 'start_vm' or kind == 'migrate_vm' or kind == 'resume_vm' then
    local vm = redis.call('HMGET', vm_key, 'owner', 'owner_incarnation', 'generation')
    if vm[1] ~= step[4] or vm[2] ~= step[5] or vm[3] ~= step[6] then return 'generation' end
  end
  if kind == 'prepare_vm' or kind == 'migrate_vm' then
    local to = redis.call('HMGET', vm_key, 'moving_host', 'moving_incarnation', 'moving_generation', 'generation',
      'owner')
    -- Nothing arrives, and the VM is another's with the number it had: its host is asked before it is stopped elsewhere.
    local asked = kind == 'prepare_vm' and (to[1] or '') == '' and to[5] ~= step[4]
    if asked and to[4] == step[6] then return nil end
    local there = kind == 'migrate_vm' and { step[9], step[10], step[11] } or { step[4], step[5], step[6] }
    if to[1] ~= there[1] or to[2] ~= there[2] or to[3] ~= there[3] then return 'generation' end
  end
  return nil
end
-- Whether the whole cluster is paused: the ledger's document of it. One that cannot be read lasts.
local function paused(ledger_key, now)
  local entry = redis.call('HGET', ledger_key, 'pause/cluster')
  if not entry then return false end
  local well, lasts = pcall(function()
    local body = cjson.decode(entry).body
    if body == '' then return false end
    local doc = cjson.decode(body)
    if not doc.on then return false end
    return type(doc['until']) ~= 'number' or now < doc['until'] * 1000000
  end)
  return not well or lasts
end
-- Steps that go on in a pause: they write down, read, bring to its end what had begun, or hold the later of two running
-- copies (core.pause, GOES_ON).
local GOES_ON = {
  prove_off = 1, see_running = 1, hand_over_vm = 1, resume_vm = 1, pause_vm = 1, close_operation = 1,
}
local ORDERED = { start_vm = 1, stop_vm = 1, pause_vm = 1, prepare_vm = 1, migrate_vm = 1 }
-- Whether a step may be claimed while the cluster is paused: also one that had begun, to learn what came of it.
local function ends_what_began(kind, state, attempt)
  return GOES_ON[kind] or state == 'running' or (ORDERED[kind] and attempt > 0)
end
