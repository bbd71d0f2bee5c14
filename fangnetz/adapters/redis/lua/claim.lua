-- Claim a step. KEYS: lease, life, op, step, vm, ledger. ARGV: token, executor, incarnation of the executor's boot, lease_us.
-- Returns {1, now, until, attempt, state before} or {0, code, now, wait_us}.
local now = now_us()
local code = obstacle(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[3], now)
if code then return {0, code, text(now), '0'} end
local step = redis.call('HMGET', KEYS[4], 'state', 'until', 'not_before', 'attempt', 'token', 'kind')
if not ends_what_began(step[6], step[1], number(step[4])) and paused(KEYS[6], now) then
  return {0, 'paused', text(now), '0'}
end
local mine = step[1] == 'running' and step[5] == ARGV[1]
if step[1] == 'running' and not mine and number(step[2]) > now then
  return {0, 'leased', text(now), text(number(step[2]) - now)}
end
if number(step[3]) > now then return {0, 'later', text(now), text(number(step[3]) - now)} end
local attempt = number(step[4])
if not mine then attempt = attempt + 1 end
local until_us = text(now + number(ARGV[4]))
redis.call('HSET', KEYS[4], 'state', 'running', 'token', ARGV[1], 'executor', ARGV[2], 'until', until_us,
  'attempt', text(attempt))
redis.call('HSETNX', KEYS[4], 'started', text(now))
if not mine then redis.call('HSET', KEYS[4], 'claimed', text(now)) end
redis.call('HINCRBY', KEYS[3], 'rev', 1)
return {1, text(now), until_us, text(attempt), step[1]}
