-- The bytes of column `slot` (from 0) of a row (rows.py); rows older than the column have what
-- `defaults` says.
local function slice(row, slot, defaults)
  local width, high, low = string.byte(row, 1, 3)
  local count = high * 256 + low
  if slot >= count then return defaults[slot] or '\192' end
  local form = width == 2 and '>H' or '>I4'
  local first = 0
  if slot > 0 then first = struct.unpack(form, row, 4 + width * (slot - 1)) end
  local last = struct.unpack(form, row, 4 + width * slot)
  local base = 3 + width * count + 3
  return string.sub(row, base + first + 1, base + last)
end

