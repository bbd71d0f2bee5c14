-- Write how a roll over hosts stands, if it still stands as its writer read it. KEYS: roll.
-- ARGV: the text that was read ('' = none), roll (JSON). Returns 1, or 0 if somebody else has written meanwhile.
-- No epoch: people roll, and no controller does; the roll itself names the command that has it in hand.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
