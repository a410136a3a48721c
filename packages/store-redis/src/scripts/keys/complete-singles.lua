-- Settles requests of one key each, if all are held as they were granted: see singles.lua, complete.lua.
if are_held then
  local fields, retention = arguments[1], arguments[2]
  local till = now + retention
  local generation
  for _, ends in ipairs(ends_of_generations) do
    if ends <= now then break end
    if ends >= till then
      if ends - till <= math.max(LEAST_SLACK, retention / 4) then
        generation = base .. ':d:' .. string.format('%.0f', ends)
      end
      break
    end
  end
  if generation and (ARGV[2] ~= 'all' or redis.call('HGET', generation, '')) then
    local rest = till - EPOCH
    local digits = {}
    for index = 6, 1, -1 do
      digits[index] = rest % 128
      rest = math.floor(rest / 128)
    end
    local value = string.char(unpack(digits))
    local set = {}
    for at = 2, #fields, 2 do
      set[at - 1], set[at] = fields[at + 1], value
    end
    -- when memory is full, what is given up comes first: it takes none, and then all is accepted
    local gone = redis.call('HDEL', base, unpack(fields, 2))
    redis.call('HSET', generation, unpack(set))
    for _, key in ipairs(waited_for or {}) do
      redis.pcall('PUBLISH', string.match(base, '^([^{]*):k:{') .. ':wake', base .. key)
    end
    if gone == #fields - 1 then return 1 end
    -- of requests that occur twice the first one is the one that completed
    local seen, codes = {}, {}
    for at = 2, #fields, 2 do
      codes[at / 2] = seen[fields[at]] and 'a' or 'c'
      seen[fields[at]] = true
    end
    return codes
  end
end
