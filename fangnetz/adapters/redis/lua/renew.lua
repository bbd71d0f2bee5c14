-- Extend a claim and check again all that must hold. KEYS: lease, life, op, step, vm, ledger.
-- ARGV: token, incarnation of the executor's boot, lease_us, progress (JSON, or ''), '1' if an effect
-- is about to begin. Returns {1, now, until} or {0, code, now}.
local now = now_us()
local code = obstacle(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[2], now)
if code then return {0, code, text(now)} end
local step = redis.call('HMGET', KEYS[4], 'state', 'token', 'kind')
if step[1] ~= 'running' or step[2] ~= ARGV[1] then return {0, 'token', text(now)} end
if ARGV[5] == '1' and not GOES_ON[step[3]] and paused(KEYS[6], now) then return {0, 'paused', text(now)} end
local until_us = text(now + number(ARGV[3]))
redis.call('HSET', KEYS[4], 'until', until_us)
if ARGV[4] ~= '' then redis.call('HSET', KEYS[4], 'progress', ARGV[4]) end
return {1, text(now), until_us}
