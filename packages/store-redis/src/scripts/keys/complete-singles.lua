-- Settles requests of one key each, without results, if all are held as they were granted: see complete.lua.
local arguments = cmsgpack.unpack(ARGV[1])

local function complete_singles()
  local fields = fields_of_singles(arguments, 4, 2)
  if not fields then return nil end
  local retention = arguments[2]
  for at = 1, #arguments, 4 do
    if arguments[at + 1] ~= retention or arguments[at + 3] ~= '' then return nil end
  end
  local gone = held_singles(fields)
  if not gone or generations[1] and generations[1] <= now then return nil end
  local millis = tonumber(retention)
  local till = now + millis
  local coming = {}
  local done_fields = fields_of_generation(coming, till, millis)
  local value = encode_expiry(till)
  local answers = {}
  for at = 2, #gone, 2 do
    done_fields[at - 1], done_fields[at] = gone[at], value
    answers[at / 2] = ''
  end
  -- when memory is full, what is given up comes first: it takes none, and then all is accepted
  redis.call('HDEL', base, unpack(gone))
  if state_changed then redis.call('HSET', base, STATE, pack_state()) end
  for ends, each in pairs(coming) do save_done(each, ends) end
  wake_waiting()
  return answers
end

local completed = complete_singles()
if completed then return completed end
