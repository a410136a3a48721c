-- What is known of keys: ARGV[1] is an array (msgpack) of them. Answers {codes, more}, a code for each key:
--   u unknown   c completed (in `more`: until)   r completed, with a result (until, result)   h held (until, owner)
local keys = arguments
read({}, keys)
read_done(keys)
local codes, more = {}, {}
for index, key in ipairs(keys) do
  local value = done[key]
  local code = 'u'
  if value then
    more[#more + 1] = expiry_in(value)
    local result = result_in(value)
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
