-- Appends messages to a topic's history and publishes them, in one step. `stream.lua` stands in front of it.
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
    local refused = add_message(KEYS[2], size, last + 1, now, entry)
    if refused then
      return refused
    end
    last = last + 1
    if ARGV[at] == 'k' then
      redis.call('SET', KEYS[key], string.format('%.0f', last) .. ' ' .. epoch, 'PX', ARGV[5])
    end
    published[#published + 1] = struct.pack('>I4', #entry) .. entry
    answer[#answer + 1] = last
  end
end
if #published > 0 then
  expire_messages(KEYS[2], ttl, now)
  redis.call('HSET', KEYS[1], 'e', epoch, 'n', string.format('%.0f', last))
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  local payload = 'H' .. epoch .. '\n' .. string.format('%.0f', first) .. '\n' .. table.concat(published)
  redis.call(ARGV[7], ARGV[8], payload)
end
return answer
