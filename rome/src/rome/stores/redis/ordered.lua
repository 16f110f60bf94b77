#!lua
-- One page of an ordered index: its entries are made from a table's rows, or checked against
-- them, or the rows against the entries; with `repair` what is wrong is made right.
local P = KEYS[1]
local c = cmsgpack.unpack(ARGV[1])
local call, byte, sub, char = redis.call, string.byte, string.sub, string.char
if c.version and (call('HGET', P .. 'meta', 'schema') or '0') ~= c.version then return {'schema'} end

local defaults = {}
for _, f in ipairs(c.defaults) do defaults[f[1]] = f[2] end
local key, rows_key = P .. 'o' .. c.t .. '.' .. c.index, P .. 'r' .. c.t

-- Whether the offsets of a row fit its length.
local function sound(row)
  if #row < 6 then return false end
  local width, high, low = byte(row, 1, 3)
  local count = high * 256 + low
  local base = 3 + width * count + 3
  if (width ~= 2 and width ~= 4) or #row < base then return false end
  local form, last = width == 2 and '>H' or '>I4', 0
  for i = 1, count do
    local stop = struct.unpack(form, row, 4 + width * (i - 1))
    if stop <= last then return false end
    last = stop
  end
  return base + last == #row
end

-- A number by its value next to a double, and what is left: sort_bytes.py has the words.
local function number_bytes(near, rest)
  local data = struct.pack('>d', near + 0)
  if near == 0 then data = '\0\0\0\0\0\0\0\0' end
  if byte(data, 1) >= 128 then
    data = string.gsub(data, '.', function(x) return char(255 - byte(x)) end)
  else
    data = char(byte(data, 1) + 128) .. sub(data, 2)
  end
  if near > -9007199254740992 and near < 9007199254740992 then return '\16' .. data end
  return '\16' .. data .. struct.pack('>H', 32768 + rest)
end

local function string_bytes(tag, data)
  return tag .. string.gsub(data, '%z', '\0\255') .. '\0'
end

-- The bytes of one value, of those that it has in a row.
local function sort_bytes(data)
  local b = byte(data, 1)
  if b == 0xc0 then return '\5' end
  if b <= 0x7f then return number_bytes(b, 0) end
  if b >= 0xe0 then return number_bytes(b - 256, 0) end
  if b <= 0xbf and b >= 0xa0 then return string_bytes('\32', sub(data, 2)) end
  if b == 0xd9 then return string_bytes('\32', sub(data, 3)) end
  if b == 0xda then return string_bytes('\32', sub(data, 4)) end
  if b == 0xdb then return string_bytes('\32', sub(data, 6)) end
  if b == 0xc4 then return string_bytes('\48', sub(data, 3)) end
  if b == 0xc5 then return string_bytes('\48', sub(data, 4)) end
  if b == 0xc6 then return string_bytes('\48', sub(data, 6)) end
  if b == 0xcf or b == 0xd3 then
    -- Two halves, as a double doesn't hold all of it.
    local high, low = struct.unpack('>I4', data, 2), struct.unpack('>I4', data, 6)
    if b == 0xd3 and high >= 2147483648 then high = high - 4294967296 end
    local near = high * 4294967296 + low
    return number_bytes(near, low - (near - high * 4294967296))
  end
  return number_bytes(cmsgpack.unpack(data), 0)
end

local by_number = #c.slots == 1 and c.slots[1] == c.key
-- A row's score and member.
local function place_of(n, row)
  if by_number then return n, n end
  local data = {}
  for i, slot in ipairs(c.slots) do data[i] = sort_bytes(slice(row, slot, defaults)) end
  return '0', table.concat(data) .. '\0' .. n
end

local findings = {}
-- Report what is wrong, and make it right; answers that were made from it are void.
local function report(kind, n, member, ...)
  findings[#findings + 1] = {kind, c.t, c.index, n, member}
  if c.repair then
    call(...)
    call('HSET', P .. 'writes', c.t, c.token)
    call('UNLINK', P .. 'scan' .. c.t)  -- who reads the table in pages begins anew
  end
end

if c.mode == 'entries' then
  local page = call('ZSCAN', key, c.cursor, 'COUNT', 500)
  for at = 1, #page[2], 2 do
    local member, score = page[2][at], page[2][at + 1]
    local n = by_number and member or string.match(member, '%z(%-?%d+)$') or ''
    local row = call('HGET', rows_key, n)
    if not row then report('gone', n, member, 'ZREM', key, member)
    elseif sound(row) then
      local right_score, right = place_of(n, row)
      if right ~= member then report('other', n, member, 'ZREM', key, member)
      elseif tonumber(score) ~= tonumber(right_score) then
        report('other', n, member, 'ZADD', key, right_score, member)
      end
    end
  end
  return {'page', findings, page[1]}
end

local page = call('HSCAN', rows_key, c.cursor, 'COUNT', c.mode == 'build' and 500 or 200)
local entries = {}
for at = 1, #page[2], 2 do
  local n, row = page[2][at], page[2][at + 1]
  if sound(row) then
    local score, member = place_of(n, row)
    if c.mode == 'build' then
      entries[#entries + 1], entries[#entries + 2] = score, member
    elseif not call('ZSCORE', key, member) then
      report('missing', n, member, 'ZADD', key, score, member)
    end
  end
end
-- A small hash comes as one page, whatever was asked for.
for start = 1, #entries, 2000 do
  call('ZADD', key, unpack(entries, start, math.min(start + 1999, #entries)))
end
return {'page', findings, page[1]}
