-- Reads where a keyed room is, and some of its items or of what was published lately. A room that nobody has begun begins.
-- KEYS: meta, items, values, removals, log, stream.
-- ARGV: the primary's run, seed of a new epoch, milliseconds that a room is kept without items; what is wanted: 'end',
--       'log' or 'items'; of the log the first offset, of the items the offset behind which they were updated; of the items
--       the cursor ('0' to begin with); how many are looked at in one go, and after how many bytes no more are added.
-- Answers with the epoch, the last offset, the offset up to which removals are forgotten, Redis' time in milliseconds, of
-- the items the next cursor ('0' where these were the last) and of the log whether there is more ('1' or '0'), and pairs:
-- an item and its record, or what was published: placement and records.
local run, seed, wanted, from = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5])
local count, bytes_max = ARGV[7], tonumber(ARGV[8])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local meta = redis.call('HMGET', KEYS[1], 'e', 'n', 'f', 'x')
local epoch, last = meta[1], tonumber(meta[2] or '0')
local ttl = meta[4] or ''
if not epoch or not last then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
  epoch, last, meta, ttl = nil, 0, {}, ARGV[3]
end
if not epoch or string.sub(epoch, 1, #run) ~= run then
  epoch = run .. '-' .. seed
  redis.call('HSET', KEYS[1], 'e', epoch, 'n', string.format('%.0f', last), 'x', ttl)
end
for name = 1, 4 do
  if ttl ~= '' then
    redis.call('PEXPIRE', KEYS[name], ttl)
  end
end

local pairs_, bytes, rest = {}, 0, '0'
local function add(one, other)
  pairs_[#pairs_ + 1] = one
  pairs_[#pairs_ + 1] = other
  bytes = bytes + #one + #other
end

local function read_log()
  local start = string.format('%.0f-0', from)
  repeat
    local part = redis.call('XRANGE', KEYS[5], start, '+', 'COUNT', count)
    for at, entry in ipairs(part) do
      if bytes >= bytes_max then
        return '1'
      end
      add(entry[2][2], entry[2][4])
      start = '(' .. entry[1]
    end
  until #part < tonumber(count)
  return '0'
end

local function read_items()
  local cursor = ARGV[6]
  repeat
    local scanned = redis.call('HSCAN', KEYS[2], cursor, 'COUNT', count)
    cursor = scanned[1]
    local names, items = {}, {}
    for at = 1, #scanned[2], 2 do
      local item = scanned[2][at + 1]
      if struct.unpack('>I8', item) > from then
        names[#names + 1], items[#items + 1] = scanned[2][at], item
      end
    end
    for low = 1, #names, 4000 do
      local values = redis.call('HMGET', KEYS[3], unpack(names, low, math.min(#names, low + 3999)))
      for at, value in ipairs(values) do
        add(items[low + at - 1], value or '')
      end
    end
  until cursor == '0' or bytes >= bytes_max
  return cursor
end

if wanted == 'log' then
  rest = read_log()
elseif wanted == 'items' then
  rest = read_items()
end
return { epoch, last, tonumber(meta[3] or '0'), string.format('%.0f', now), rest, pairs_ }
