-- Forget a closed operation beyond the bound. KEYS: closed index, op, its steps ... ARGV: id.
-- Returns 1, or 0 if it is open: then its place in the index was wrong, and only that is mended.
-- No epoch: what is closed stays closed, whoever counts them.
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.pcall('HGET', KEYS[2], 'state') == 'open' then return 0 end -- of another type: not open
redis.call('DEL', unpack(KEYS, 2))
return 1
