-- All that is known of a stream: the fields of its hash; of each live claim its id, owner, token, until and ranges; the time.
local fields = redis.call('HGETALL', base)
for at = 1, #fields, 2 do
  if fields[at] == 'v' then check_format(fields[at + 1]) end
end
local live = {}
local listed = redis.call('HGETALL', claims_key)
for at = 1, #listed, 2 do
  local claim = decode_claim(listed[at], listed[at + 1])
  if now < claim.till then
    live[#live + 1] = { claim.id, claim.owner, claim.token, claim.till, encode_ranges(held_by(claim)) }
  end
end
return { fields, live, now }
