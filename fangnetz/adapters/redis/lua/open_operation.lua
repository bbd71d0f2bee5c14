-- Journal a new operation. KEYS: lease, open index, op, step 1, step 2, ...
-- ARGV: epoch, index field (kind/subject), id, header (JSON), keys of steps, one a line, then per step: n, field, value, ...
-- Returns 1 opened, 0 stale epoch or a lease that ran out, -1 it was opened before, or one of its kind and subject is open.
if not in_charge(KEYS[1], ARGV[1]) then return 0 end
-- Nobody else has it yet: but whoever slept through its end decided on what was so before.
if number(redis.call('HGET', KEYS[1], 'until')) <= now_us() then return 0 end
if redis.call('EXISTS', KEYS[3]) == 1 then return -1 end
if redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3]) == 0 then return -1 end
redis.call('HSET', KEYS[3], 'doc', ARGV[4], 'steps', ARGV[5], 'epoch', ARGV[1], 'state', 'open', 'rev', '1',
  'index', ARGV[2], 'opened', text(now_us()))
local at = 6
for i = 4, #KEYS do
  local n = number(ARGV[at])
  redis.call('HSET', KEYS[i], unpack(ARGV, at + 1, at + n))
  at = at + n + 1
end
return 1
