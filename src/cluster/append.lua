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
if not epoch then
  -- Whatever the stream holds belongs to an epoch that is forgotten.
  redis.call('DEL', KEYS[2])
  last = 0
end
if not epoch or string.sub(epoch, 1, #run) ~= run then
  epoch = run .. '-' .. seed
end
local first, key, answer, published = last + 1, 2, { epoch }, {}
for at = 9, #ARGV, 2 do
  local entry, known = ARGV[at + 1], nil
  if ARGV[at] == 'k' then
    key = key + 1
    local place = redis.call('GET', KEYS[key])
    if place then
      local space = string.find(place, ' ', 1, true)
      if string.sub(place, space + 1) == epoch then
        known = tonumber(string.sub(place, 1, space - 1))
      end
    end
  end
  if known then
    answer[#answer + 1] = known
  else
    last = last + 1
    local offset = string.format('%.0f', last)
    redis.call('XADD', KEYS[2], 'MAXLEN', size, offset .. '-0', 'm', entry, 't', string.format('%.0f', now))
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
    if now - tonumber(oldest[2][4]) < ttl then
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
