-- Take back a claim that was written and never granted: too few replicas confirmed it, so nobody acts on it.
-- KEYS: op, step. ARGV: token, state of the step before that claim. Returns 1, or 0 if another claim has followed.
-- No epoch: only the claim with that token is taken back, whoever is in charge by now; it grants nobody anything.
-- Only what that very claim counted is counted back: every attempt that may have had an effect stays counted, and
-- `claimed` stays, from which others reckon how long a lost executor may still act.
local step = redis.call('HMGET', KEYS[2], 'state', 'token', 'attempt')
if step[1] ~= 'running' or step[2] ~= ARGV[1] then return 0 end
local attempt = math.max(number(step[3]) - 1, 0)
redis.call('HSET', KEYS[2], 'state', ARGV[2], 'token', '', 'executor', '', 'until', '0', 'attempt', text(attempt))
if attempt == 0 then redis.call('HDEL', KEYS[2], 'started', 'claimed') end
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return 1
