-- How buckets grow and shrink: by the length of those that a call has touched, which are a fair sample of all; nobody
-- counts keys. One bucket alone says little, and must be twice as long as it should be before another is split.

-- Divides the bucket at the split pointer into two, by one more bit of its entries' hashes.
local function split_one()
  local number = split
  local count = 2 ^ level
  read_buckets({ number, number + count })
  local text = buckets[number]
  -- of keys that were made to collide, however many, only their bucket suffers
  if #text < BUCKET_BYTES / 8 then return false end
  local stay, go = {}, {}
  for key, rest in string.gmatch(text, '\255([^\254]*)\254([^\255]*)') do
    if now < decode_digits(rest, 6, 7) then
      local list = decode_digits(rest, 1, 5) % (2 * count) == number and stay or go
      list[#list + 1] = '\255' .. key .. '\254' .. rest
    end
  end
  set_bucket(number, table.concat(stay))
  set_bucket(number + count, table.concat(go))
  split = split + 1
  if split == count then level, split = level + 1, 0 end
  return true
end

-- Takes the last split back.
local function merge_one()
  if split == 0 then
    if level == 0 then return false end
    level, split = level - 1, 2 ^ (level - 1)
  end
  split = split - 1
  local count = 2 ^ level
  read_buckets({ split, split + count })
  set_bucket(split, without_expired_front(buckets[split]) .. without_expired_front(buckets[split + count]))
  set_bucket(split + count, '')
  return true
end

-- Once `numbers` of buckets got something. Gives until when the chunks of moved entries must last; 0 where none moved.
local function grow_or_shrink(numbers)
  local bytes, count, seen = 0, 0, {}
  for _, number in ipairs(numbers) do
    if not seen[number] then
      seen[number] = true
      count = count + 1
      bytes = bytes + #buckets[number]
    end
  end
  local mean = bytes / count
  local step
  if mean > BUCKET_BYTES * (1 + 1 / math.sqrt(count)) then
    step = split_one
  elseif mean < BUCKET_BYTES / 8 and 2 ^ level + split > 1 then
    step = merge_one
  else
    return 0
  end
  for _ = 1, math.ceil(#numbers / 8) do
    if not step() then break end
  end
  changed_meta.l = level
  changed_meta.s = split
  local latest = 0
  for _, till in pairs(chunk_ends) do latest = math.max(latest, till) end
  return latest
end
