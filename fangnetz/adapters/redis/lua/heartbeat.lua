-- Write a host's report. KEYS: hb, past. ARGV: incarnation, sequence, document (JSON), how many past boots to keep.
-- Returns the receive time in us, or -1: this boot was followed by another one already, so two machines (or a message
-- that was long delayed) report under one name; written down as `contested`. `boot_since`: first report of this boot.
-- An older sequence of the same boot changes nothing.
-- No epoch: hosts report, whoever is in charge; boots and sequence numbers order them.
-- What is of another type, or has no instants, was written by nobody of us: the report takes its place, or the host would
-- fall silent for it.
for i, kind in ipairs({ 'hash', 'list' }) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', KEYS[i]) end
end
local old = redis.call('HMGET', KEYS[1], 'incarnation', 'sequence', 'at', 'boot_since', 'contested')
local sound = count(old[2]) > 0 and count(old[3]) > 0 and count(old[4]) > 0 and not (old[5] and count(old[5]) == 0)
if sound and old[1] == ARGV[1] and count(old[2]) >= number(ARGV[2]) then return old[3] end
local now = text(now_us())
if not sound then redis.call('HDEL', KEYS[1], 'contested') end
if not sound or old[1] ~= ARGV[1] then
  if old[1] and old[1] ~= ARGV[1] then
    if redis.call('LPOS', KEYS[2], ARGV[1]) then
      redis.call('HSET', KEYS[1], 'contested', now)
      return -1
    end
    redis.call('LPUSH', KEYS[2], old[1])
    redis.call('LTRIM', KEYS[2], 0, number(ARGV[4]) - 1)
  end
  redis.call('HSET', KEYS[1], 'boot_since', now)
end
redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], 'sequence', ARGV[2], 'at', now, 'doc', ARGV[3])
return now
