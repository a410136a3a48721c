-- Completed keys. Each stands in a generation, a hash which ends as a whole: the first one that outlives the key, if it
-- does so by no more than a quarter of the key's retention; else a new one. So there are some five at a time, and a look-up
-- asks each.
--
-- A value is its expiry (milliseconds since EPOCH, six digits of seven bits, the highest first) [\252 fingerprint]
-- [\253 result].
local EPOCH = 1577836800000
local LEAST_SLACK = 1000
local MOST_GENERATIONS = 32

-- By key: the value of a key that is completed, and not yet to be forgotten.
local done = {}
local forgotten_generations = 0

local function generation_key(ends)
  return base .. ':d:' .. digits(ends)
end

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

local function read_done(keys)
  for _, ends in ipairs(generations) do
    if ends <= now then
      forgotten_generations = forgotten_generations + 1
    else
      local key_of_generation = generation_key(ends)
      for at = 1, #keys, 4000 do
        local last = math.min(at + 3999, #keys)
        local found = redis.call('HMGET', key_of_generation, unpack(keys, at, last))
        for index = 1, last - at + 1 do
          local value = found[index]
          if value and now < expiry_in(value) then done[keys[at + index - 1]] = value end
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

-- The generation for a key that is to be forgotten at `till`, after `retention`; whether it is a new one.
local function generation_for(till, retention)
  local slack = math.max(LEAST_SLACK, math.floor(retention / 4))
  for at, ends in ipairs(generations) do
    if ends >= till then
      if ends <= till + slack or #generations >= MOST_GENERATIONS then return ends, false end
      table.insert(generations, at, till + slack)
      return till + slack, true
    end
  end
  generations[#generations + 1] = till + slack
  return till + slack, true
end

local function save_generations()
  set_meta('g', cmsgpack.pack(generations))
end

-- Not left to Redis, which would free a large hash at one go, while all others wait.
local function unlink_forgotten()
  if forgotten_generations == 0 then return end
  for _ = 1, forgotten_generations do redis.call('UNLINK', generation_key(table.remove(generations, 1))) end
  save_generations()
end

-- Adds values by key, {key, value, key, value, ...}, which are to be forgotten at `till`.
local function save_done(fields, till, retention)
  local ends, is_new = generation_for(till, retention)
  local key = generation_key(ends)
  if is_new then
    redis.call('HSET', key, NO_LIST, NO_LIST_VALUE)
    -- for a namespace that nobody asks any more
    redis.call('PEXPIREAT', key, digits(ends + 10000))
    save_generations()
  end
  call_in_slices('HSET', key, fields)
end
