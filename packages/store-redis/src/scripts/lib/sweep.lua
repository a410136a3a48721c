-- Removes what died without a word: claims that have been over for 10 leases, and keys that nobody holds any more. A few
-- fields at a time, on the way of others' claims; more where most of them are dead.
local function sweep()
  for _ = 1, 8 do
    local found = redis.call('HSCAN', base, sweep_cursor, 'COUNT', 16)
    local dead = 0
    sweep_cursor = found[1]
    for at = 1, #found[2], 2 do
      local field, value = found[2][at], found[2][at + 1]
      local is_dead = false
      if byte(field) == 254 then
        local id = sub(field, 2)
        is_dead = not changed_claims[id] and not claim_of(id)
      elseif field ~= STATE and held[field] == nil then
        local claim = claim_of(match(value, '^\254([^\255]*)'))
        is_dead = not claim or sub(value, 1, #claim.mark) ~= claim.mark
      end
      if is_dead then
        dead = dead + 1
        gone_fields[#gone_fields + 1] = field
      end
    end
    if sweep_cursor == '0' or 4 * dead < #found[2] then return end
  end
end
