-- A page of a namespace's held keys and live claims: ARGV[1] is a cursor of HSCAN. Answers {next cursor, keys (in threes of
-- key, until, owner), claims (in fives of id, owner, token, until, count), the ends of the generations}.
read({}, {})
local found = redis.call('HSCAN', base, ARGV[1], 'COUNT', 200)
local keys, live = {}, {}
for at = 1, #found[2], 2 do
  local field, value = found[2][at], found[2][at + 1]
  if byte(field) == 254 then
    local claim = put_claim(sub(field, 2), value)
    if claim and now < claim.till then
      for _, part in ipairs({ claim.id, claim.owner, claim.token, claim.till, claim.count }) do live[#live + 1] = part end
    end
  elseif field ~= STATE then
    held[field] = value
    local holder = holder_of(field)
    if holder and now < holder.till then
      for _, part in ipairs({ field, holder.till, holder.owner }) do keys[#keys + 1] = part end
    end
  end
end
local ends = {}
for _, each in ipairs(generations) do
  if each > now then ends[#ends + 1] = each end
end
return { found[1], keys, live, ends }
