-- Reads where a topic's history ends, and some of its messages. A history that nobody has begun begins.
-- KEYS: meta, stream.
-- ARGV: the primary's run, seed of a new epoch, milliseconds the meta is kept, which messages ('none', 'forward',
--       'back', or 'whole', which is back to the first wanted where that is there, and nothing otherwise), first and
--       last offset wanted, how many at most, and after how many bytes no more are added.
-- Answers with the epoch, the last offset, Redis' time in milliseconds, whether there are more of those wanted, and the
-- messages as offset, entry and time, behind each other; from the last to the first where they are read back.
local run, seed = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- A keyed room says itself how long it is kept.
local meta = redis.call('HMGET', KEYS[1], 'e', 'n', 'x')
local epoch, last, ttl = meta[1], tonumber(meta[2] or '0'), meta[3] or ARGV[3]
if not epoch or not last then
  redis.call('DEL', KEYS[2])
  epoch, last = nil, 0
end
if not epoch or string.sub(epoch, 1, #run) ~= run then
  epoch = run .. '-' .. seed
  redis.call('HSET', KEYS[1], 'e', epoch, 'n', string.format('%.0f', last))
end
if ttl ~= '' then
  redis.call('PEXPIRE', KEYS[1], ttl)
end

-- Messages looked at in one go: so many may come beyond the bytes.
local STEP = 16
local which, count_max, bytes_max = ARGV[4], tonumber(ARGV[7]), tonumber(ARGV[8])
-- What stands behind the end no node has written.
local from, to = tonumber(ARGV[5]), math.min(tonumber(ARGV[6]), last)
local messages, bytes, looked_at = {}, 0, 0

local function range(command, first, final, count)
  return redis.call(command, KEYS[2], string.format('%.0f', first), string.format('%.0f', final), 'COUNT', count)
end

local function offset_of(message)
  return tonumber(string.match(message[1], '^%d+'))
end

-- An entry that no node has written is there as an empty one, so that whoever reads knows of it.
local function take(message)
  looked_at = looked_at + 1
  if string.sub(message[1], -2) ~= '-0' then
    return
  end
  local fields, at = message[2], #messages
  local is_ours = #fields == 4 and fields[1] == 'm' and fields[3] == 't' and tonumber(fields[4])
  messages[at + 1] = offset_of(message)
  messages[at + 2] = is_ours and fields[2] or ''
  messages[at + 3] = is_ours and fields[4] or '0'
  bytes = bytes + #messages[at + 2]
end

if which == 'none' then
  to = from - 1
elseif which == 'whole' then
  local oldest = from <= to and range('XRANGE', from, to, 1)[1]
  if not oldest or offset_of(oldest) ~= from then
    to = from - 1
  end
end
while from <= to and looked_at < count_max and bytes < bytes_max do
  local command, first, final = 'XREVRANGE', to, from
  if which == 'forward' then
    command, first, final = 'XRANGE', from, to
  end
  local part = range(command, first, final, math.min(STEP, count_max - looked_at))
  if #part == 0 then
    to = from - 1
  else
    for _, message in ipairs(part) do
      take(message)
    end
    if which == 'forward' then
      from = offset_of(part[#part]) + 1
    else
      to = offset_of(part[#part]) - 1
    end
  end
end
return { epoch, last, string.format('%.0f', now), from <= to and 1 or 0, messages }
