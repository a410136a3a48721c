local function check_format(found)
  if found and found ~= FORMAT then
    error('TIDEMARKFORMAT ' .. found)
  end
end

-- A number's digits: concatenation would turn it into 1.79e15.
local function digits(number)
  return string.format('%.0f', number)
end

-- A hint to whoever waits, of all processes; a user without the right to publish waits by polling.
local function wake(base, name)
  redis.pcall('PUBLISH', string.match(base, '^([^{]*):[sk]:{') .. ':wake', name)
end

-- When memory is full, Redis refuses a script's first write if it could take memory, and none after it. What was
-- claimed must be renewed, completed and given back then too: this writes nothing, and counts as the first.
local function write_though_full(key)
  redis.call('HDEL', key, '\254')
end

-- A command for any number of arguments: Lua's stack holds some 8,000.
local function call_in_slices(command, key, arguments)
  for at = 1, #arguments, 4000 do
    redis.call(command, key, unpack(arguments, at, math.min(at + 3999, #arguments)))
  end
end
