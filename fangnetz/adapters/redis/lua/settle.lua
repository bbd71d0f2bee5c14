-- Write the outcome of a claimed step, atomically with what it changes.
-- KEYS: lease, op, step, open index, closed index, placements, skipped steps ..., added steps ..., VMs assigned ...
-- ARGV: token, op id, state, sentence, facts (JSON), retry_us, closes ('' or a state), keys of added steps, one a line,
--   number of skips, number of adds, number of assigns, placements counted when the plan was made,
--   per add: n, field, value, ...
--   per assign: expected generation, floor, owner, incarnation, reason, op id, '1' if it is only being moved there,
--     number of adds it numbers, their indexes ...
-- An added step that exists already is a clash; a VM whose generation moved on is a conflict: nothing is written then.
-- Returns {1, now, generation ...} or {0, code}. Same token again after it settled: {1, now} and nothing changes.
-- A claim whose lease ran out may still settle while nobody else has claimed: the truth is welcome late. So is its own line
-- under an epoch that is over. But whatever else of an open operation it would change (close it, add or skip steps, give
-- VMs away) needs the present epoch, or nothing is written: the step stays as it is, and the new holder, which adopts the
-- operation, has it done again.
local now = now_us()
local step = redis.call('HMGET', KEYS[3], 'state', 'token')
if not step[1] then return {0, 'gone'} end
if step[2] ~= ARGV[1] then return {0, 'token'} end
if step[1] ~= 'running' then return {1, text(now)} end
local open = redis.call('HGET', KEYS[2], 'state') == 'open'
local skips, adds, assigns = number(ARGV[9]), number(ARGV[10]), number(ARGV[11])
if not open and (adds > 0 or assigns > 0) then return {0, 'closed'} end
local beyond_its_line = ARGV[7] ~= '' or skips > 0 or adds > 0 or assigns > 0
if open and beyond_its_line and not in_charge(KEYS[1], redis.call('HGET', KEYS[2], 'epoch')) then return {0, 'epoch'} end
local at = 13
local add_at = {}
for i = 1, adds do
  add_at[i] = at
  at = at + number(ARGV[at]) + 1
end
if assigns > 0 and (redis.call('GET', KEYS[6]) or '0') ~= ARGV[12] then return {0, 'placements'} end
local assign_at = at
local probe = at
for i = 1, assigns do
  local vm = KEYS[6 + skips + adds + i]
  if redis.call('HGET', vm, 'generation') ~= ARGV[probe] then return {0, 'generation'} end
  probe = probe + 8 + number(ARGV[probe + 7])
end
for i = 1, adds do
  if redis.call('EXISTS', KEYS[6 + skips + i]) == 1 then return {0, 'clash'} end
end
local retry = ARGV[3] == 'ready'
redis.call('HSET', KEYS[3], 'state', ARGV[3], 'sentence', ARGV[4], 'facts', ARGV[5], 'until', '0')
if retry then
  redis.call('HSET', KEYS[3], 'not_before', text(now + number(ARGV[6])))
else
  redis.call('HSET', KEYS[3], 'ended', text(now))
end
for i = 1, skips do
  local state = redis.call('HGET', KEYS[6 + i], 'state')
  if state == 'ready' then
    redis.call('HSET', KEYS[6 + i], 'state', 'skipped', 'ended', text(now), 'sentence', ARGV[4])
  end
end
for i = 1, adds do
  redis.call('HSET', KEYS[6 + skips + i], unpack(ARGV, add_at[i] + 1, add_at[i] + number(ARGV[add_at[i]])))
end
local answer = {1, text(now)}
at = assign_at
for i = 1, assigns do
  local vm = KEYS[6 + skips + adds + i]
  local generation = text(next_number(ARGV[at], ARGV[at + 1]))
  local moving = ARGV[at + 6] == '1'
  if moving then
    redis.call('HSET', vm, 'moving_host', ARGV[at + 2], 'moving_incarnation', ARGV[at + 3], 'moving_generation', generation,
      'state', 'moving', 'since', text(now), 'reason', ARGV[at + 4], 'operation', ARGV[at + 5])
  else
    redis.call('HSET', vm, 'owner', ARGV[at + 2], 'owner_incarnation', ARGV[at + 3], 'generation', generation,
      'state', 'starting', 'since', text(now), 'reason', ARGV[at + 4], 'operation', ARGV[at + 5])
  end
  local n = number(ARGV[at + 7])
  for j = 1, n do
    local line = KEYS[6 + skips + number(ARGV[at + 7 + j])]
    local leaves = moving and redis.call('HEXISTS', line, 'o_to_host') == 1  -- the order to the host it leaves
    redis.call('HSET', line, leaves and 'o_to_generation' or 'o_generation', generation)
  end
  answer[#answer + 1] = generation
  at = at + 8 + n
end
if assigns > 0 then redis.call('INCR', KEYS[6]) end
if adds > 0 then redis.call('HSET', KEYS[2], 'steps', redis.call('HGET', KEYS[2], 'steps') .. '\n' .. ARGV[8]) end
redis.call('HINCRBY', KEYS[2], 'rev', 1)
if ARGV[7] ~= '' and open then
  redis.call('HSET', KEYS[2], 'state', ARGV[7], 'closed', text(now), 'sentence', ARGV[4])
  redis.call('HDEL', KEYS[4], redis.call('HGET', KEYS[2], 'index'))
  redis.call('ZADD', KEYS[5], text(now), ARGV[2])
end
return answer
