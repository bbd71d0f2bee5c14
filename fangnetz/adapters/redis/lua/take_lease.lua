-- Take or renew the control lease. KEYS: life, lease. ARGV: controller, ttl_us, highest epoch the asker ever saw.
-- Returns {1, epoch, until_us} or {0, why}. The epoch changes whenever the holder does.
-- No epoch: this is where epochs come from; who holds it at the moment decides.
local life = redis.call('HMGET', KEYS[1], 'since', 'run_id')
local now, here = now_us(), memory()
if not life[1] or life[2] ~= here then return {0, 'life'} end
if now < number(life[1]) + number(ARGV[2]) then return {0, 'young'} end
local lease = redis.call('HMGET', KEYS[2], 'holder', 'epoch', 'until')
local mine = lease[1] == ARGV[1]
if lease[1] and not mine and number(lease[3]) > now then return {0, 'held'} end
local epoch = lease[2]
if not mine or number(lease[3]) <= now then epoch = text(next_number(lease[2], ARGV[3])) end
local until_us = text(now + number(ARGV[2]))
redis.call('HSET', KEYS[2], 'holder', ARGV[1], 'epoch', epoch, 'until', until_us, 'memory', here)
return {1, epoch, until_us}
