-- Whether each claim holds just its key, without a fingerprint; the ends of the generations; whose keys somebody waits for.
--
-- Requests of one key each are what `once` and locks ask, alone or gathered. Where nothing else is to be said than yes, they
-- are answered at the beginning of a script, in a straight line: to define functions takes longer than all the rest. What is
-- otherwise is left as it is to the script for any requests, which follows.
local are_held, ends_of_generations, waited_for = are_singles, nil, nil
if are_singles then
  local fields = arguments[1]
  local found = redis.call('HMGET', base, unpack(fields))
  local format, _
  if found[1] then format, _, ends_of_generations = cmsgpack.unpack(found[1]) end
  are_held = format == FORMAT
  local tail, stamp
  for at = 2, #fields, 2 do
    local claim, text = found[at], found[at + 1]
    -- of a claim on one key
    are_held = are_held and claim and text and string.byte(claim) == 1
    if not are_held then break end
    local its_tail = string.sub(claim, -TAIL)
    if its_tail ~= tail then
      local first, _, forgotten_at = cmsgpack.unpack(its_tail)
      are_held = now < forgotten_at
      tail, stamp = its_tail, '\255' .. string.format('%.0f', first)
    end
    local mark = fields[at] .. stamp
    if text ~= mark then
      are_held = are_held and text == mark .. '\251'
      waited_for = waited_for or {}
      waited_for[#waited_for + 1] = fields[at + 1]
    end
  end
end
