-- Write versioned documents that are newer than what is there. KEYS: ledger, ledger version, versions.
-- ARGV: per document: key, version, document (JSON with that version). Returns how many were written.
-- No epoch: a version is as old as its decision and loses against all written since, and hosts write here too;
-- a refusal would not hold it back, as every machine's files bring what is newer there.
local written = 0
for i = 1, #ARGV, 3 do
  local old = redis.call('HGET', KEYS[3], ARGV[i])
  if number(ARGV[i + 1]) > number(old) then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    go_on_after(count(ARGV[i + 1])) -- versions are instants of this clock, or a little later
    written = written + 1
  end
end
if written > 0 then redis.call('SET', KEYS[2], text(now_us())) end
return written
