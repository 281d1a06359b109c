-- Forgets a topic's history: a new epoch begins, and all who follow it are told.
-- KEYS: meta, stream.
-- ARGV: the primary's run, seed of the new epoch, milliseconds the meta is kept, command to publish with, channel.
-- Answers with the epoch.
local epoch = ARGV[1] .. '-' .. ARGV[2]
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'e', epoch, 'n', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call(ARGV[4], ARGV[5], 'H' .. epoch .. '\n1\n')
return epoch
