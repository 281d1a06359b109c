-- Forgets a topic's history: a new epoch begins, and all who follow it are told. Items of a keyed room stay, and offsets go
-- on behind theirs.
-- KEYS: meta, stream.
-- ARGV: the primary's run, seed of the new epoch, milliseconds the meta is kept, command to publish with, channel.
-- Answers with the epoch and the offset behind which it begins.
local epoch = ARGV[1] .. '-' .. ARGV[2]
local meta = redis.call('HMGET', KEYS[1], 'n', 'x')
local last, ttl = meta[2] and meta[1] or '0', meta[2] or ARGV[3]
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'e', epoch, 'n', last)
if ttl ~= '' then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
redis.call(ARGV[4], ARGV[5], 'H' .. epoch .. '\n' .. string.format('%.0f', tonumber(last) + 1) .. '\n')
return { epoch, last }
