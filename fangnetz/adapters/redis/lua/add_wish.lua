-- Write a wish down, unless it was answered already: asking again after a lost answer must not repeat it.
-- KEYS: wishes, result. ARGV: wish id, wish (JSON). Returns 1, or 0 if it was answered.
-- No epoch: people write wishes, and no controller does.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
