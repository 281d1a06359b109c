-- Reads where a topic's history ends, and some of its messages. A history that nobody has begun begins.
-- KEYS: meta, stream.
-- ARGV: the primary's run, seed of a new epoch, milliseconds the meta is kept, first and last offset wanted ('' and ''
--       for none), how many at most.
-- Answers with the epoch, the last offset, Redis' time in milliseconds, and the messages as XRANGE gives them.
local run, seed = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local meta = redis.call('HMGET', KEYS[1], 'e', 'n')
local epoch, last = meta[1], meta[2] or '0'
if not epoch then
  redis.call('DEL', KEYS[2])
end
if not epoch or string.sub(epoch, 1, #run) ~= run then
  epoch = run .. '-' .. seed
  redis.call('HSET', KEYS[1], 'e', epoch, 'n', last)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local messages = {}
if ARGV[4] ~= '' then
  messages = redis.call('XRANGE', KEYS[2], ARGV[4] .. '-0', ARGV[5], 'COUNT', ARGV[6])
end
return { epoch, tonumber(last), string.format('%.0f', now), messages }
