-- What is known of keys: ARGV are the keys (JSON) and their hashes. Answers {codes, more}, a code for each key:
--   u unknown   c completed (in `more`: until)   r completed, with a result (until, result)   h held (until, owner)
local keys = cjson.decode(ARGV[1])
read_held(keys)
local numbers = buckets_of(ARGV[2])
local codes, more = {}, {}
for index, key in ipairs(keys) do
  local till, rest = completed(numbers[index], key)
  local code = 'u'
  if till then
    more[#more + 1] = till
    local result = result_in(key, rest)
    code = result and 'r' or 'c'
    if result then more[#more + 1] = result end
  else
    local holder = holder_of(key)
    if holder and now < holder.till then
      code = 'h'
      more[#more + 1] = holder.till
      more[#more + 1] = holder.owner
    end
  end
  codes[index] = code
end
return { table.concat(codes), more }
