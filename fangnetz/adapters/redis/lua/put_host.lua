-- Write a host's record if it is still what the writer read. KEYS: lease, host.
-- ARGV: epoch, the text that was read ('' = none yet), document. Returns 1 written, 0 stale epoch, -1 changed meanwhile.
if not in_charge(KEYS[1], ARGV[1]) then return 0 end
local stands = redis.pcall('GET', KEYS[2])
if type(stands) == 'table' then
  if not stands.err:match('^WRONGTYPE') then return stands end
  stands = '' -- a list or a hash is no record
end
if (stands or '') ~= ARGV[2] then return -1 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
