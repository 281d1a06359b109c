-- What scripts that write a topic's history have in common; it stands in front of them.

-- Entries behind the end that the meta knows: no node has written them, and the next message has no place.
local function delete_behind(stream, offset)
  local from = string.format('%.0f-1', offset)
  for _ = 1, 10 do
    local foreign = redis.call('XRANGE', stream, from, '+', 'COUNT', 100)
    for _, message in ipairs(foreign) do
      redis.call('XDEL', stream, message[1])
    end
    if #foreign < 100 then
      break
    end
  end
  redis.pcall('XSETID', stream, string.format('%.0f-0', offset))
end

-- Adds a message behind the last one; the error where it cannot be added.
local function add_message(stream, messages_max, offset, now, entry)
  local id, at = string.format('%.0f-0', offset), string.format('%.0f', now)
  local function add()
    local added = redis.pcall('XADD', stream, 'MAXLEN', messages_max, id, 'm', entry, 't', at)
    return type(added) == 'table' and added.err and added
  end
  local refused = add()
  if refused and string.find(refused.err, 'equal or smaller', 1, true) then
    delete_behind(stream, offset - 1)
    refused = add()
  end
  return refused
end

-- Drops messages that are as old as `ttl`, and has the stream go when the last of them is.
local function expire_messages(stream, ttl, now)
  for _ = 1, 100 do
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    -- One without a time is no message, and goes like one that is too old.
    if not oldest or now - (tonumber(oldest[2][4]) or 0) < ttl then
      break
    end
    redis.call('XDEL', stream, oldest[1])
  end
  redis.call('PEXPIRE', stream, ttl)
end

