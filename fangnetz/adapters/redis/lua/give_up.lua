-- Settle as failed a step whose order expired unanswered, or can never be carried out any more (void). KEYS: lease, op, step, followers to skip ...
-- ARGV: epoch, sentence, facts (JSON), '1' if void. Returns 1, or 0 if somebody holds the step, it is settled, or the epoch is stale.
if not in_charge(KEYS[1], ARGV[1]) then return 0 end
local now = now_us()
local step = redis.call('HMGET', KEYS[3], 'state', 'until', 'o_deadline')
if step[1] ~= 'ready' and step[1] ~= 'running' then return 0 end
if number(step[2]) > now then return 0 end
if ARGV[4] ~= '1' and number(step[3]) > now then return 0 end
redis.call('HSET', KEYS[3], 'state', 'failed', 'ended', text(now), 'sentence', ARGV[2], 'facts', ARGV[3])
for i = 4, #KEYS do
  if redis.call('HGET', KEYS[i], 'state') == 'ready' then
    redis.call('HSET', KEYS[i], 'state', 'skipped', 'ended', text(now), 'sentence', ARGV[2])
  end
end
redis.call('HINCRBY', KEYS[2], 'rev', 1)
return 1
