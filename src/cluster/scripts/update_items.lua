-- Updates items of a keyed room and publishes what became of them, in one step. `stream.lua` stands in front of it.
--
-- Lua hashes every byte of a string that it makes, so values come through here as few times as they can: once in one
-- piece, as they are published, and once more the last of each item, as it is stored.
--
-- KEYS: meta, items, values, removals, log, stream, then the key of each command that has one.
-- ARGV: 1 the primary's run, 2 seed of a new epoch, 3 command to publish with, 4 channel;
--       5 items at most, 6 bytes at most, 7 bytes that an item counts beside its record;
--       8 milliseconds that removals are remembered, 9 and how many;
--       10 milliseconds that a command's key is kept, 11 that the room is without items, 12 and without updates ('': ever);
--       13 messages kept as history (0: none), 14 milliseconds that they are;
--       15 bytes of half the log, 16 milliseconds that it is kept;
--       17 commands, each: flags (1: has a key, 2: replaces), how many updates (4);
--       18 updates, each: number of the name, from 1 (4), flags (1: removes, 2: has a version, 4: only at an offset), bytes
--       of the record (4); 19 the records behind each other, behind 'V';
--       20 milliseconds after which an item that was not updated is removed ('': never), 21 what is told of that removal in
--       front of the time and '}' ('': nothing at all);
--       22 how many commands replace, and of each what stands in the record of a removal behind the name; then the names,
--       each once.
-- A record: bytes of what follows (4), length of the name (1), name, flags (1), version or offset (8) where it has one, and
-- whatever nodes make of the rest. An item is stored as offset (8), time (8), seq (8), state (1: removed, 2: has a version), bytes of the record
-- (4), version (8) where it has one.
-- Publishes, where anything was updated, the placement: 'P', epoch, '\n', offset of the first update (8), and then in order: 0 (1), how
-- many of the updates (4), of each its seq or 0 where it is none (8); or 1 (1), how many removals by a command that
-- replaces (4), of each its seq (8) and its record. Then the records as they came.
-- Answers with the epoch; for each command the room's offset behind it, or what is too many as -1 - its index; and pairs of
-- a command and the index of an update in it that was stale, both from 0.
local call, pack, unpack_, sub, byte = redis.call, struct.pack, struct.unpack, string.sub, string.byte
local items_max, bytes_max, item_bytes = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local history_max, records = tonumber(ARGV[13]), ARGV[19]
local REMOVALS, STEP, PART, SWEPT = 22, 100, 4000, 100
local NAMES = REMOVALS + tonumber(ARGV[REMOVALS])
local KEY, REPLACES, REMOVED, VERSION, CONDITION = 1, 2, 1, 2, 4

local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function digits(number)
  return string.format('%.0f', number)
end

local meta = call('HMGET', KEYS[1], 'e', 'n', 'f', 'c', 'b', 'x', 'l', 'lb', 'sc', 'sd')
local epoch, last = meta[1], tonumber(meta[2] or '0')
if not epoch or not last then
  -- Whatever there is belongs to an epoch that is forgotten.
  call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
  epoch, last, meta = nil, 0, {}
end
local has_begun = not epoch or sub(epoch, 1, #ARGV[1]) ~= ARGV[1]
if has_begun then
  epoch = ARGV[1] .. '-' .. ARGV[2]
end
local forgotten, present, bytes = tonumber(meta[3] or '0'), tonumber(meta[4] or '0'), tonumber(meta[5] or '0')
local first = last + 1

-- Of each name, by its number: what the item is, and of those that are updated where in the records the last of theirs is,
-- or that itself.
local seqs, states, offsets, highs, lows, sizes, were_removed = {}, {}, {}, {}, {}, {}, {}
local froms, tos, made = {}, {}, {}

local function fetch(from, to)
  for low = from, to, PART do
    local high = math.min(to, low + PART - 1)
    local stored = call('HMGET', KEYS[2], unpack(ARGV, NAMES + low, NAMES + high))
    for id = low, high do
      local item = stored[id - low + 1]
      if item then
        local _
        offsets[id], _, seqs[id], states[id], sizes[id] = unpack_('>I8I8I8BI4', item)
        if states[id] >= VERSION then
          highs[id], lows[id] = unpack_('>I4I4', item, 30)
        end
        were_removed[id] = states[id] % 2 == REMOVED
      else
        offsets[id], seqs[id], states[id], sizes[id] = 0, 0, REMOVED, -item_bytes
      end
    end
  end
end
local names = #ARGV - NAMES
fetch(1, names)

local formats = {}
local function format(part, count)
  local known = formats[part .. count]
  if not known then
    known = '>' .. string.rep(part, count)
    formats[part .. count] = known
  end
  return known
end

-- Of each update its seq, or 0; the same as pieces of what is published, up to the update `told`.
local given, told, pieces = {}, 0, { 'P', epoch, '\n', pack('>I8', first) }
-- For history: of each update its seq, and where its record is, or that itself.
local kept = {}

local function tell_given(to)
  pieces[#pieces + 1] = pack('>BI4', 0, to - told)
  for from = told + 1, to, STEP do
    local final = math.min(to, from + STEP - 1)
    pieces[#pieces + 1] = pack(format('I8', final - from + 1), unpack(given, from, final))
  end
  told = to
end

local function next_seq(id)
  if seqs[id] > 0 then
    return seqs[id] + 1
  end
  -- Above every seq that a forgotten item may have had, and above the room's offset.
  return forgotten == 0 and 1 or last + 2
end

-- Items with a value that are not named, in the order of their last update.
local function present_but(named)
  local known, others = {}, {}
  for id = 1, names do
    known[ARGV[NAMES + id]] = true
  end
  for _, name in ipairs(call('HKEYS', KEYS[2])) do
    if not known[name] then
      ARGV[#ARGV + 1] = name
    end
  end
  local before = names
  names = #ARGV - NAMES
  fetch(before + 1, names)
  for id = 1, names do
    if states[id] % 2 ~= REMOVED and not named[id] then
      others[#others + 1] = id
    end
  end
  table.sort(others, function(one, other)
    return offsets[one] < offsets[other]
  end)
  return others
end

-- Removes items; `rest_of` says what stands in the record of an item's removal behind the name.
local function remove(others, rest_of)
  pieces[#pieces + 1] = pack('>BI4', 1, #others)
  for _, id in ipairs(others) do
    local name, rest = ARGV[NAMES + id], rest_of(id)
    local record, seq = pack('>I4B', 1 + #name + #rest, #name) .. name .. rest, next_seq(id)
    last, bytes = last + 1, bytes + #record + item_bytes
    seqs[id], states[id], offsets[id], sizes[id] = seq, states[id] + REMOVED, last, #record
    made[id], froms[id] = record, 0
    if history_max > 0 then
      kept[#kept + 1] = { seq, record }
    end
    pieces[#pieces + 1] = pack('>I8', seq) .. record
  end
end

-- Items that nobody has updated for too long go, of a part of the items at a time: then the next call looks at the next
-- part, and when all were looked at there is a pause. Nodes that follow the room ask for such removals themselves; here
-- they are made for rooms that none follows. What this call updates stays.
local swept_to, sweep_at
local function sweep(ttl)
  if present == 0 or now < tonumber(meta[10] or '0') then
    return
  end
  local scanned, known, old, before = call('HSCAN', KEYS[2], meta[9] or '0', 'COUNT', SWEPT), {}, {}, names
  swept_to = scanned[1]
  sweep_at = swept_to == '0' and digits(now + math.max(1000, math.floor(ttl / 8))) or '0'
  for id = 1, names do
    known[ARGV[NAMES + id]] = true
  end
  for k = 1, #scanned[2], 2 do
    local name, _, updated_at, _, state = scanned[2][k], unpack_('>I8I8I8B', scanned[2][k + 1])
    if state % 2 ~= REMOVED and now - updated_at >= ttl and not known[name] then
      known[name], ARGV[#ARGV + 1] = true, name
    end
  end
  names = #ARGV - NAMES
  fetch(before + 1, names)
  for id = before + 1, names do
    old[#old + 1] = id
    present, bytes = present - 1, bytes - sizes[id] - item_bytes
  end
  table.sort(old, function(one, other)
    return offsets[one] < offsets[other]
  end)
  local tail = ARGV[21] ~= '' and ARGV[21] .. digits(now) .. '}' or ''
  if #old > 0 then
    -- As a node asks for it: so it is known for no publisher's.
    remove(old, function(id)
      return pack('>BI8', REMOVED + CONDITION, offsets[id]) .. tail
    end)
  end
end
if ARGV[20] ~= '' then
  sweep(tonumber(ARGV[20]))
end

local at, update, replaced, key, answers, stales, places = 2, 0, 0, 6, {}, {}, {}

-- Whether a command could find no room, were all its updates of new items. Then what it changes is noted.
local function may_be_refused(part, count, flags)
  local length = count * item_bytes
  for k = 3, count * 3, 3 do
    length = length + part[k]
  end
  return flags >= REPLACES or present + count > items_max or bytes + length > bytes_max
end

-- The updates of one command, all of them or none. The index of the one that is too many.
local function apply(command, part, count, undo)
  for index = 0, count - 1 do
    local id, does, length = part[index * 3 + 1], part[index * 3 + 2], part[index * 3 + 3]
    local from = at
    at, update = at + length, update + 1
    local state, is_stale, high, low = states[id], false, highs[id], lows[id]
    if does >= VERSION then
      local own_high, own_low = unpack_('>I4I4', records, from + 6 + byte(records, from + 4))
      if does >= CONDITION then
        is_stale = own_high * 4294967296 + own_low ~= offsets[id]
      else
        is_stale = state >= VERSION and (own_high < high or own_high == high and own_low <= low)
        high, low = own_high, own_low
      end
    end
    if is_stale then
      given[update] = 0
      if does < CONDITION then
        stales[#stales + 1] = command
        stales[#stales + 1] = index
      end
    else
      local size, removes, was_removed = sizes[id], does % 2 == REMOVED, state % 2 == REMOVED
      if undo then
        undo[#undo + 1] = { id, seqs[id], state, offsets[id], highs[id] or false, lows[id] or false, size,
          froms[id] or false, tos[id] or false, made[id] or false }
      end
      local seq = next_seq(id)
      last, bytes = last + 1, bytes - size + length
      if removes ~= was_removed then
        present = removes and present - 1 or present + 1
      end
      local has_room = bytes <= bytes_max
      if removes then
        -- What is known may always go; of what is not the removal takes a place as well.
        has_room = has_room or seqs[id] > 0
      elseif was_removed then
        has_room = has_room and present <= items_max
      else
        has_room = has_room or length <= size
      end
      if not has_room then
        return index
      end
      seqs[id], states[id], offsets[id], sizes[id] = seq, does % 2 + (high and VERSION or 0), last, length
      froms[id], tos[id], made[id], highs[id], lows[id] = from, at - 1, nil, high, low
      given[update] = seq
      if history_max > 0 then
        kept[#kept + 1] = { seq, from, at - 1 }
      end
    end
  end
end

local function truncate(list, length)
  for k = #list, length + 1, -1 do
    list[k] = nil
  end
end

local function run(command, part, count, replaces)
  local before_at, before, before_last, before_present, before_bytes = at, update, last, present, bytes
  local before_stales, before_kept = #stales, #kept
  local undo, others = may_be_refused(part, count, replaces and REPLACES or 0) and {}, {}
  if replaces then
    local named = {}
    for k = 1, count * 3, 3 do
      named[part[k]] = true
    end
    others = present_but(named)
    for _, id in ipairs(others) do
      present, bytes = present - 1, bytes - sizes[id] - item_bytes
    end
  end
  local refused = apply(command, part, count, undo)
  if refused then
    for k = #undo, 1, -1 do
      local id, seq, state, offset, high, low, size, from, to, record = unpack(undo[k])
      seqs[id], states[id], offsets[id], sizes[id] = seq, state, offset, size
      highs[id], lows[id], froms[id], tos[id], made[id] = high or nil, low or nil, from or nil, to or nil, record or nil
    end
    at, update, last, present, bytes = before_at, before, before_last, before_present, before_bytes
    truncate(stales, before_stales)
    truncate(kept, before_kept)
    return -1 - refused
  end
  if #others > 0 then
    tell_given(update)
    local rest = ARGV[REMOVALS + replaced]
    remove(others, function()
      return rest
    end)
  end
  return last
end

-- The updates of a command that changes nothing.
local function pass_over(part, count)
  for index = 0, count - 1 do
    at, update = at + part[index * 3 + 3], update + 1
    given[update] = 0
  end
end

for command = 0, #ARGV[17] / 5 - 1 do
  local flags, count = unpack_('>BI4', ARGV[17], command * 5 + 1)
  local part = {}
  for from = 0, count - 1, STEP do
    local step = { unpack_(format('I4BI4', math.min(STEP, count - from)), ARGV[18], (update + from) * 9 + 1) }
    if count <= STEP then
      part = step
    else
      for k = 1, #step - 1 do
        part[from * 3 + k] = step[k]
      end
    end
  end
  if flags >= REPLACES then
    replaced = replaced + 1
  end
  local offset, of, known_stales
  if flags % 2 == KEY then
    key = key + 1
    local place = places[KEYS[key]] or call('GET', KEYS[key]) or ''
    offset, of, known_stales = string.match(place, '^(%d+) (%S+) ?(.*)$')
  end
  if of and of == epoch then
    pass_over(part, count)
    answers[#answers + 1] = tonumber(offset)
    for index in string.gmatch(known_stales, '%d+') do
      stales[#stales + 1] = command
      stales[#stales + 1] = tonumber(index)
    end
  else
    local before = #stales
    local answer = run(command, part, count, flags >= REPLACES)
    answers[#answers + 1] = answer
    if answer < 0 then
      pass_over(part, count)
    elseif flags % 2 == KEY then
      local stale = {}
      for k = before + 2, #stales, 2 do
        stale[#stale + 1] = digits(stales[k])
      end
      places[KEYS[key]] = digits(last) .. ' ' .. epoch .. ' ' .. table.concat(stale, ',')
    end
  end
end

local function in_parts(command, name, list)
  for from = 1, #list, PART do
    call(command, name, unpack(list, from, math.min(#list, from + PART - 1)))
  end
end

-- Removals that are too old, or too many: who knew such an item cannot be told any more.
local function forget_removals(count_max)
  local old = call('ZRANGEBYSCORE', KEYS[4], '-inf', digits(now - tonumber(ARGV[8])), 'LIMIT', 0, count_max)
  local excess = math.min(call('ZCARD', KEYS[4]) - tonumber(ARGV[9]), count_max)
  if excess > #old then
    old = call('ZRANGE', KEYS[4], 0, excess - 1)
  end
  if #old == 0 then
    return
  end
  for _, item in ipairs(call('HMGET', KEYS[2], unpack(old))) do
    if item then
      local offset, _, _, _, size = unpack_('>I8I8I8BI4', item)
      forgotten, bytes = math.max(forgotten, offset), bytes - size - item_bytes
    end
  end
  for name = 2, 3 do
    call('HDEL', KEYS[name], unpack(old))
  end
  call('ZREM', KEYS[4], unpack(old))
end

local function store()
  local items, values, count, removed, revived = {}, {}, 0, {}, {}
  for id = 1, names do
    if froms[id] then
      local name = ARGV[NAMES + id]
      local item = pack('>I8I8I8BI4', offsets[id], now, seqs[id], states[id], sizes[id])
      items[count + 1], values[count + 1] = name, name
      count = count + 2
      items[count] = highs[id] and item .. pack('>I4I4', highs[id], lows[id]) or item
      values[count] = made[id] or sub(records, froms[id], tos[id])
      if states[id] % 2 == REMOVED then
        removed[#removed + 1] = digits(now)
        removed[#removed + 1] = name
      elseif were_removed[id] then
        revived[#revived + 1] = name
      end
    end
  end
  in_parts('HSET', KEYS[2], items)
  in_parts('HSET', KEYS[3], values)
  in_parts('ZADD', KEYS[4], removed)
  in_parts('ZREM', KEYS[4], revived)
  forget_removals(math.min(PART, 100 + #removed))
end

-- What was published lately, for those who miss some of it: at least half of what it may be, and at most that.
local half_from, half_bytes = meta[7] or '0', tonumber(meta[8] or '0')
local function log(placement)
  local function add()
    return redis.pcall('XADD', KEYS[5], digits(last) .. '-0', 'p', placement, 'r', records)
  end
  if type(add()) == 'table' then
    call('DEL', KEYS[5])
    half_from, half_bytes = '0', 0
    add()
  end
  half_bytes = half_bytes + #placement + #records
  if half_bytes > tonumber(ARGV[15]) then
    call('XTRIM', KEYS[5], 'MINID', half_from .. '-1')
    half_from, half_bytes = digits(last), 0
  end
  call('PEXPIRE', KEYS[5], ARGV[16])
end

if last >= first then
  tell_given(update)
  for k = 1, #kept do
    local seq, from, to = unpack(kept[k])
    local entry = string.rep('\255', 8) .. pack('>I8', seq) .. (to and sub(records, from, to) or from)
    local refused = add_message(KEYS[6], history_max, first + k - 1, now, entry)
    if refused then
      return refused
    end
  end
  store()
  local placement = table.concat(pieces)
  if history_max > 0 then
    expire_messages(KEYS[6], tonumber(ARGV[14]), now)
  else
    log(placement)
  end
  call(ARGV[3], ARGV[4], placement)
  call(ARGV[3], ARGV[4], records)
end
if last >= first or has_begun then
  local ttl = present == 0 and ARGV[11] or ARGV[12]
  call('HSET', KEYS[1], 'e', epoch, 'n', digits(last), 'f', digits(forgotten), 'c', digits(present), 'b', digits(bytes),
    'x', ttl, 'l', half_from, 'lb', digits(half_bytes))
  for name = 1, 4 do
    if ttl ~= '' then
      call('PEXPIRE', KEYS[name], ttl)
    elseif meta[6] ~= '' then
      call('PERSIST', KEYS[name])
    end
  end
end
if swept_to then
  call('HSET', KEYS[1], 'sc', swept_to, 'sd', sweep_at)
end
for name, place in pairs(places) do
  call('SET', name, place, 'PX', ARGV[10])
end
return { epoch, answers, stales }
