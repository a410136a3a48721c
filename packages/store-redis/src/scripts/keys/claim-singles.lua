-- Grants requests of one key each, if all keys are free and all claims are new: see singles.lua, claim.lua.
if are_singles then
  local fields, heads, lease = arguments[1], arguments[2], arguments[3]
  local found = redis.call('HMGET', base, unpack(fields))
  local state = found[1]
  local format, token, generations
  if state then format, token, generations = cmsgpack.unpack(state) end
  local are_new = format == FORMAT
  for at = 2, #fields do
    if found[at] then are_new = false end
  end
  if are_new and generations[1] then
    local keys = { '' }
    for at = 3, #fields, 2 do keys[#keys + 1] = fields[at] end
    for _, ends in ipairs(generations) do
      local known = ends > now and redis.call('HMGET', base .. ':d:' .. string.format('%.0f', ends), unpack(keys))
      -- none is over, and each is there
      are_new = are_new and known and known[1]
      for at = 2, are_new and #keys or 0 do
        if known[at] then are_new = false end
      end
    end
  end
  local first = are_new and math.max(token + 1, micros)
  local last = are_new and first + #heads - 1
  if are_new and last % SWEPT_EACH ~= 0 then
    local stamp = '\255' .. string.format('%.0f', first)
    local tail = cmsgpack.pack(first, now + lease, now + lease + LEASES_KEPT * lease)
    local set = { STATE, string.sub(state, 1, 2) .. cmsgpack.pack(last) .. string.sub(state, 12) }
    local to = 2
    for at = 2, #fields, 2 do
      local field = fields[at]
      set[to + 1], set[to + 2] = field, heads[at / 2] .. tail
      set[to + 3], set[to + 4] = fields[at + 1], field .. stamp
      to = to + 4
    end
    if redis.call('HSET', base, unpack(set)) == 2 * #heads then return { now, first } end
    -- one occurs twice
    redis.call('HDEL', base, unpack(fields, 2))
  end
end
