-- Completed keys. Each stands in a generation, a hash which ends as a whole: the first one that outlives the key, if it
-- does so by no more than a quarter of the key's retention; else a new one. So there are some five at a time, and a look-up
-- asks each.
--
-- A value is its expiry (milliseconds since EPOCH, six digits of seven bits, the highest first) [\252 fingerprint]
-- [\253 result].
local MOST_GENERATIONS = 32

-- By key: the value of a key that is completed, and not yet to be forgotten.
local done = {}

local function expiry_in(value)
  local a, b, c, d, e, f = byte(value, 1, 6)
  return EPOCH + ((((a * 128 + b) * 128 + c) * 128 + d) * 128 + e) * 128 + f
end

local function encode_expiry(till)
  local rest = till - EPOCH
  local text = {}
  for index = 6, 1, -1 do
    text[index] = rest % 128
    rest = math.floor(rest / 128)
  end
  return char(unpack(text))
end

-- While its slot moves to another node of a cluster, a generation may be there already or still where it was: what is not
-- here is not known to be new. ARGV[2] is 'all' where each generation must be there.
local function check_here(ends, long)
  if not long and ARGV[2] == 'all' then
    error('TRYAGAIN ' .. generation_key(ends) .. ' is on its way to another node')
  end
end

local function read_done(keys)
  for _, ends in ipairs(generations) do
    if ends > now then
      for at = 1, #keys, 4000 do
        local last = math.min(at + 3999, #keys)
        local found = redis.call('HMGET', generation_key(ends), '', unpack(keys, at, last))
        check_here(ends, found[1])
        for index = at, last do
          local value = found[index - at + 2]
          if value and now < expiry_in(value) then done[keys[index]] = value end
        end
      end
    end
  end
end

local function print_in(value)
  return match(value, '^......\252([^\253]*)', 1)
end

local function result_in(value)
  local at = string.find(value, '\253', 7, true)
  return at and sub(value, at + 1)
end

-- When the generation ends for a key that is to be forgotten at `till`, after `retention`; whether it is a new one.
local function generation_for(till, retention)
  local slack = math.max(LEAST_SLACK, math.floor(retention / 4))
  local at = 1
  while generations[at] and generations[at] < till do at = at + 1 end
  local ends = generations[at]
  if ends and (ends <= till + slack or #generations >= MOST_GENERATIONS) then return ends, false end
  table.insert(generations, at, till + slack)
  state_changed = true
  return till + slack, true
end

-- The list of what comes into the generation for such a key, {key, value, key, value, ...}.
local function fields_of_generation(coming, till, retention)
  local ends, is_new = generation_for(till, retention)
  local fields = coming[ends]
  if not fields then
    if not is_new and ARGV[2] == 'all' then check_here(ends, redis.call('HGET', generation_key(ends), '')) end
    fields = { is_new = is_new }
    coming[ends] = fields
  end
  return fields
end

-- Takes the generations that are over from the list, and gives them.
local function take_forgotten()
  local over = {}
  while generations[1] and generations[1] <= now do
    over[#over + 1] = table.remove(generations, 1)
    state_changed = true
  end
  return over
end

-- Not left to Redis, which would free a large hash at one go, while all others wait.
local function unlink(over)
  for _, ends in ipairs(over) do redis.call('UNLINK', generation_key(ends)) end
end

-- Writes what comes into a generation.
local function save_done(fields, ends)
  local key = generation_key(ends)
  if fields.is_new then
    redis.call('HSET', key, '', LONG)
    -- for a namespace that nobody asks any more
    redis.call('PEXPIREAT', key, digits(ends + 10000))
  end
  call_in_slices('HSET', key, fields)
end
