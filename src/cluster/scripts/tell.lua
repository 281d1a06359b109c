-- What the nodes have between them of webhooks: who is where, what receivers were told, and the events that are not
-- delivered yet. Each node calls it from time to time; one of them is the teller.
-- KEYS: state (e epoch, n last event's number, t teller, u until when), registrations by the end of their leases, subjects
--       with the number of registrations that have them, subjects told as present, differences by when they are due,
--       events by number. Registrations' sets are in the same slot.
-- ARGV: what the names of registrations' sets begin with, own registration, whether this is its first call, milliseconds
--       of its lease, seed of a new epoch, who calls, whether it would be the teller, milliseconds of that lease (0 gives it
--       up), last event it knows, how many it takes, how many there may be, whether differences become events, whether registrations
--       whose lease is over are swept, milliseconds their differences wait, where in what was told to read on ('' is
--       nowhere), whether its earlier registrations are over, how many there are, how many events are finished; then those
--       registrations, those events' numbers, and the changes: what has changed, of which subject, milliseconds to wait.
-- Answers with: whether the registration is good, epoch, whether the caller is the teller, whether it has become that now,
--       last event's number, whether there is more to do, where to read on and what was told, events as number and text.
local STEP = 500
local state, nodes, counts, told, due, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local base, own, is_first, lease = ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function number(value)
  return string.format('%.0f', value)
end

local epoch = redis.call('HGET', state, 'e')
if not epoch then
  epoch = ARGV[5]
  redis.call('HSET', state, 'e', epoch)
end
local until_then = tonumber(redis.call('ZSCORE', nodes, own) or '0')
if not is_first and until_then <= now then
  return { 0, epoch, 0, 0, 0, 0, '', {}, {} }
end
redis.call('ZADD', nodes, number(now + lease), own)

-- Where what is and what was told differ, the difference waits; else there is none.
local function compare(subject, is_present, hold)
  local was_told = redis.call('SISMEMBER', told, subject) == 1
  if is_present == was_told then
    redis.call('ZREM', due, subject)
  else
    redis.call('ZADD', due, number(now + hold), subject)
  end
end

local function add(subject, hold)
  if redis.call('SADD', base .. own, subject) == 1 and redis.call('HINCRBY', counts, subject, 1) == 1 then
    compare(subject, true, hold)
  end
end

local function take(subject, hold)
  if redis.call('HINCRBY', counts, subject, -1) <= 0 then
    redis.call('HDEL', counts, subject)
    compare(subject, false, hold)
  end
end

local at = 19
for _ = 1, tonumber(ARGV[17]) do
  -- The lease of one that is over has ended, and whoever is the teller sweeps it.
  redis.call('ZADD', nodes, 'XX', ARGV[16] == '1' and '0' or number(now + lease), ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[18]) do
  redis.call('ZREMRANGEBYSCORE', events, ARGV[at], ARGV[at])
  at = at + 1
end
while at < #ARGV do
  local what, subject, hold = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if what == '+' then
    add(subject, hold)
  elseif what == '-' then
    if redis.call('SREM', base .. own, subject) == 1 then
      take(subject, hold)
    end
  elseif what == 'clear' then
    redis.call('DEL', told)
  elseif what == 'told' then
    redis.call('SADD', told, subject)
    compare(subject, redis.call('HEXISTS', counts, subject) == 1, hold)
  elseif what == 'last' then
    if tonumber(redis.call('HGET', state, 'n') or '0') < hold then
      redis.call('HSET', state, 'n', number(hold))
    end
  elseif what == 'event' then
    if hold == 0 then
      hold = redis.call('HINCRBY', state, 'n', 1)
    end
    redis.call('ZADD', events, number(hold), subject)
  end
  at = at + 3
end

local teller = redis.call('HMGET', state, 't', 'u')
local is_mine = teller[1] == ARGV[6]
if is_mine and ARGV[8] == '0' then
  redis.call('HDEL', state, 't', 'u')
  return { 1, epoch, 0, 0, 0, 0, '', {}, {} }
end
if not is_mine and (ARGV[7] ~= '1' or tonumber(teller[2] or '0') > now) then
  return { 1, epoch, 0, 0, 0, 0, '', {}, {} }
end
redis.call('HSET', state, 't', ARGV[6], 'u', number(now + tonumber(ARGV[8])))

local more = 0
local swept = redis.call('ZRANGEBYSCORE', nodes, '-inf', ARGV[13] == '1' and number(now) or '0', 'LIMIT', 0, 1)[1]
if swept then
  local subjects = redis.call('SPOP', base .. swept, STEP)
  for _, subject in ipairs(subjects) do
    take(subject, tonumber(ARGV[14]))
  end
  if #subjects < STEP then
    redis.call('ZREM', nodes, swept)
  end
  more = 1
end

local last = tonumber(redis.call('HGET', state, 'n') or '0')
if is_mine and ARGV[12] == '1' and last >= tonumber(ARGV[9]) then
  local room = math.min(STEP, tonumber(ARGV[11]) - redis.call('ZCARD', events))
  local subjects = room > 0 and redis.call('ZRANGEBYSCORE', due, '-inf', number(now), 'LIMIT', 0, room) or {}
  for _, subject in ipairs(subjects) do
    local is_present = redis.call('HEXISTS', counts, subject) == 1
    redis.call('ZREM', due, subject)
    last = redis.call('HINCRBY', state, 'n', 1)
    local id = epoch .. '-' .. number(last)
    redis.call('ZADD', events, number(last), (is_present and '1' or '0') .. id .. ' ' .. subject)
    redis.call(is_present and 'SADD' or 'SREM', told, subject)
  end
  if #subjects == STEP then
    more = 1
  end
end

local from = is_mine and '(' .. ARGV[9] or '-inf'
local found = redis.call('ZRANGEBYSCORE', events, from, '+inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[10]))
local cursor, page = '', {}
if is_mine and ARGV[15] ~= '' then
  local answer = redis.call('SSCAN', told, ARGV[15], 'COUNT', STEP)
  cursor, page = answer[1], answer[2]
end
return { 1, epoch, 1, is_mine and 0 or 1, number(last), more, cursor, page, found }
