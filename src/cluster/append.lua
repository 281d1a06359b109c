-- Appends messages to a topic's history and publishes them, in one step.
-- KEYS: meta, stream, then the key of each message that has one.
-- ARGV: the primary's run, seed of a new epoch, messages kept, milliseconds kept, milliseconds a key is kept,
--       milliseconds the meta is kept, command to publish with, channel, then for each message whether it has a key
--       ('k' or ''), and the entry.
-- Answers with the epoch and an offset for each message.
local run, seed, size, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local meta = redis.call('HMGET', KEYS[1], 'e', 'n')
local epoch, last = meta[1], tonumber(meta[2] or '0')
if not epoch or not last then
  -- Whatever the stream holds belongs to an epoch that is forgotten.
  redis.call('DEL', KEYS[2])
  epoch, last = nil, 0
end
if not epoch or string.sub(epoch, 1, #run) ~= run then
  epoch = run .. '-' .. seed
end

local function add(offset, entry)
  local id, at = string.format('%.0f-0', offset), string.format('%.0f', now)
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', size, id, 'm', entry, 't', at)
end

local function is_refused(added)
  return type(added) == 'table' and added.err
end

-- Entries behind the end that the meta knows: no node has written them, and the next message has no place.
local function delete_behind(offset)
  local from = string.format('%.0f-1', offset)
  for _ = 1, 10 do
    local foreign = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 100)
    for _, message in ipairs(foreign) do
      redis.call('XDEL', KEYS[2], message[1])
    end
    if #foreign < 100 then
      break
    end
  end
  redis.pcall('XSETID', KEYS[2], string.format('%.0f-0', offset))
end

local first, key, answer, published = last + 1, 2, { epoch }, {}
for at = 9, #ARGV, 2 do
  local entry, known = ARGV[at + 1], nil
  if ARGV[at] == 'k' then
    key = key + 1
    local place = redis.call('GET', KEYS[key])
    local space = place and string.find(place, ' ', 1, true)
    if space and string.sub(place, space + 1) == epoch then
      known = tonumber(string.sub(place, 1, space - 1))
    end
  end
  if known then
    answer[#answer + 1] = known
  else
    local added = add(last + 1, entry)
    if is_refused(added) and string.find(added.err, 'equal or smaller', 1, true) then
      delete_behind(last)
      added = add(last + 1, entry)
    end
    if is_refused(added) then
      return added
    end
    last = last + 1
    local offset = string.format('%.0f', last)
    if ARGV[at] == 'k' then
      redis.call('SET', KEYS[key], offset .. ' ' .. epoch, 'PX', ARGV[5])
    end
    published[#published + 1] = struct.pack('>I4', #entry) .. entry
    answer[#answer + 1] = last
  end
end
if #published > 0 then
  for _ = 1, 100 do
    local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    -- One without a time is no message, and goes like one that is too old.
    if not oldest or now - (tonumber(oldest[2][4]) or 0) < ttl then
      break
    end
    redis.call('XDEL', KEYS[2], oldest[1])
  end
  redis.call('HSET', KEYS[1], 'e', epoch, 'n', string.format('%.0f', last))
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  local payload = 'H' .. epoch .. '\n' .. string.format('%.0f', first) .. '\n' .. table.concat(published)
  redis.call(ARGV[7], ARGV[8], payload)
end
return answer
