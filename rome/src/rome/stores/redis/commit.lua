#!lua
-- One transaction: every check first, then every write.  Its request is that of
-- commit.py; base.py says what it means.
local P = KEYS[1]
local version, token, remember, tables, inserts, changes, unique_add, unique_del, set_add, set_del,
  order_add, order_del, exists, childless, reads, used, holder, held
  = unpack(cmsgpack.unpack(ARGV[1]))
local call, sub, byte = redis.call, string.sub, string.byte
local done = P .. 't:' .. token
if call('EXISTS', done) == 1 then return {'done'} end
if ARGV[4] and ARGV[4] ~= '' then
  -- Replicas that follow and were heard of within the last two seconds.
  local replicas = 0
  for lag in string.gmatch(call('INFO', 'replication'), 'state=online,offset=%d+,lag=(%d+)') do
    if tonumber(lag) <= 2 then replicas = replicas + 1 end
  end
  if replicas < tonumber(ARGV[4]) then return {'replicas', replicas} end
end
local schema, leases = unpack(call('HMGET', P .. 'meta', 'schema', 'leases'))
if (schema or '0') ~= version then return {'schema'} end
if leases and #tables > 0 then
  if ARGV[5] == '' then return {'unnamed'} end
  local wait = wait_for_leases(tables)
  if wait > 0 then return {'leased', wait} end
end

local NIL, MOST = '\192', 2000

-- What a hash has in the fields that stand at every second place of a list.
local function values_of(key, list)
  if #list == 2 then return {(call('HGET', key, list[1]))} end
  local fields, values = {}, {}
  for i = 1, #list, 2 do fields[(i + 1) / 2] = list[i] end
  for start = 1, #fields, MOST do
    local got = call('HMGET', key, unpack(fields, start, math.min(start + MOST - 1, #fields)))
    for i = 1, #got do values[start + i - 1] = got[i] end
  end
  return values
end

-- One call for each key, or several if the list is long.
local function call_each(command, lists)
  for i = 1, #lists, 2 do
    local key, list = P .. lists[i], lists[i + 1]
    for start = 1, #list, MOST do
      call(command, key, unpack(list, start, math.min(start + MOST - 1, #list)))
    end
  end
end

-- The table and the index of a unique index's key.
local function parts_of(key)
  local table_no, index = string.match(key, '^u(%d+)%.(%d+)$')
  return tonumber(table_no), tonumber(index)
end

-- How many columns a row has, and a function for where the bytes of one of them stand: before
-- the first, and the last.
local function places_of(row)
  local width, high, low = byte(row, 1, 3)
  local count = high * 256 + low
  local base = 6 + width * count
  return count, function(slot)
    local first, last = 0, 0
    if width == 2 then
      local a, b, c, d = byte(row, 2 + 2 * slot, 5 + 2 * slot)
      if slot > 0 then first = a * 256 + b end
      last = c * 256 + d
    else
      local at = 4 + 4 * slot
      local a, b, c, d = byte(row, at, at + 3)
      last = ((a * 256 + b) * 256 + c) * 256 + d
      if slot > 0 then
        a, b, c, d = byte(row, at - 4, at - 1)
        first = ((a * 256 + b) * 256 + c) * 256 + d
      end
    end
    return base + first, base + last
  end
end

-- The start of a row, up to its columns' bytes, with those ends moved that other values move.
local function moved(row, count, deltas, moves)
  local first = deltas[1][1]
  local bytes = {byte(row, 4 + 2 * first, 3 + 2 * count)}
  local move, i = 0, 1
  for slot = first, count - 1 do
    if deltas[i] and deltas[i][1] == slot then
      move = move + moves[i]
      i = i + 1
    end
    if move ~= 0 then
      local at = 2 * (slot - first) + 1
      local stop = bytes[at] * 256 + bytes[at + 1] + move
      local low = stop % 256
      bytes[at], bytes[at + 1] = (stop - low) / 256, low
    end
  end
  return sub(row, 1, 3 + 2 * first) .. string.char(unpack(bytes)) .. '\220' .. sub(row, 2, 3)
end

-- The row with other values, by ascending slot; nil if it has no such columns, or is or gets
-- large.
local function replaced(row, deltas, count, place)
  local base = 6 + 2 * count
  if byte(row, 1) ~= 2 or count > 1000 then return nil end
  local pieces, moves, copied, size, same = {}, {}, base, #row - base, true
  for i = 1, #deltas do
    local slot, data = deltas[i][1], deltas[i][2]
    if slot >= count then return nil end
    local before, last = place(slot)
    local move = #data - (last - before)
    pieces[2 * i], pieces[2 * i + 1] = sub(row, copied + 1, before), data
    moves[i], copied, size, same = move, last, size + move, same and move == 0
  end
  if size >= 65536 then return nil end
  pieces[1] = same and sub(row, 1, base) or moved(row, count, deltas, moves)
  pieces[#pieces + 1] = sub(row, copied + 1)
  return table.concat(pieces)
end

-- A row's columns: how many, the bytes before theirs, and where each one ends.
local function ends_of(row)
  local width, high, low = byte(row, 1, 3)
  local count = high * 256 + low
  local ends = {}
  for slot = 0, count - 1, 500 do
    -- As many at once as fit on the stack.
    local n, at = math.min(count - slot, 500), 4 + width * slot
    local bytes = {byte(row, at, at + width * n - 1)}
    for i = 1, n do
      if width == 2 then ends[slot + i] = bytes[2 * i - 1] * 256 + bytes[2 * i]
      else
        local a, b, c, d = unpack(bytes, 4 * i - 3, 4 * i)
        ends[slot + i] = ((a * 256 + b) * 256 + c) * 256 + d
      end
    end
  end
  return count, 6 + width * count, ends
end

-- A row, of where its columns end and of their bytes.
local function row_of(ends, data)
  local count = #ends
  local width = (ends[count] or 0) < 65536 and 2 or 4
  local head = {struct.pack('>BH', width, count)}
  for slot = 1, count, 500 do
    local bytes, n = {}, 0
    for i = slot, math.min(slot + 499, count) do
      local stop = ends[i]
      if width == 4 then
        local high = math.floor(stop / 65536)
        bytes[n + 1], bytes[n + 2] = math.floor(high / 256), high % 256
        n = n + 2
      end
      local low = stop % 256
      bytes[n + 1], bytes[n + 2] = (stop - low) / 256 % 256, low
      n = n + 2
    end
    head[#head + 1] = string.char(unpack(bytes))
  end
  head[#head + 1] = struct.pack('>BH', 0xdc, count)
  head[#head + 1] = data
  return table.concat(head)
end

-- The row with other values of any length, and with columns that are younger than it.  What
-- lies between the columns that change is copied as it is.
local function rebuilt(row, by_slot, deltas, width)
  local count, base, ends = ends_of(row)
  local new = {}
  for slot = count, width - 1 do new[slot] = by_slot[slot] or NIL end
  for i = 1, #deltas do new[deltas[i][1]] = deltas[i][2] end
  local pieces, copied, start, length = {}, 0, 0, 0
  for slot = 0, math.max(count, width) - 1 do
    local stop, data = ends[slot + 1] or start, new[slot]
    if data then
      if start > copied then pieces[#pieces + 1] = sub(row, base + copied + 1, base + start) end
      pieces[#pieces + 1] = data
      copied, length = stop, length + #data
    else
      length = length + stop - start
    end
    start = stop
    ends[slot + 1] = length
  end
  pieces[#pieces + 1] = sub(row, base + copied + 1)
  return row_of(ends, table.concat(pieces))
end

-- What a change makes of a row, or nil if the row isn't as expected.
local function changed(row, checks, defaults, deltas, width)
  local count, place = places_of(row)
  local by_slot = {}
  for i = 1, #defaults do by_slot[defaults[i][1]] = defaults[i][2] end
  for i = 1, #checks do
    local slot, data = checks[i][1]
    if slot < count then
      local before, last = place(slot)
      data = sub(row, before + 1, last)
    else
      data = by_slot[slot] or NIL
    end
    if data ~= checks[i][2] then return nil end
  end
  if width == 0 then return row end
  return count >= width and replaced(row, deltas, count, place)
    or rebuilt(row, by_slot, deltas, width)
end

for i = 1, #inserts, 2 do
  local list = inserts[i + 1]
  for j, there in ipairs(values_of(P .. inserts[i], list)) do
    if there then return {'duplicate', tonumber(sub(inserts[i], 2)), -1, list[2 * j - 1]} end
  end
end

-- Rows that go, and rows as they will be.
local gone, updated = {}, {}
for i = 1, #changes, 2 do
  local key, list = changes[i], changes[i + 1]
  local numbers, gone_here, updated_here = {}, {}, {}
  for j, change in ipairs(list) do numbers[2 * j - 1], numbers[2 * j] = change[1], '' end
  local rows = values_of(P .. key, numbers)
  for j, change in ipairs(list) do
    local number, checks, defaults, deltas, width = unpack(change)
    local row = rows[j] and changed(rows[j], checks, defaults, deltas, width)
    if not row then return {'changed', tonumber(sub(key, 2)), number} end
    if width == 0 then gone_here[#gone_here + 1] = number
    else
      updated_here[#updated_here + 1] = number
      updated_here[#updated_here + 1] = row
    end
  end
  gone[i], gone[i + 1], updated[i], updated[i + 1] = key, gone_here, key, updated_here
end

-- Entries that this transaction takes away, so that it may give them to another row.
local freed = {}
for i = 1, #unique_del, 2 do
  local entries, list = {}, unique_del[i + 1]
  for j = 1, #list, 2 do entries[list[j]] = list[j + 1] end
  freed[unique_del[i]] = entries
end
for i = 1, #unique_add, 2 do
  local key, list = unique_add[i], unique_add[i + 1]
  for j, holder in ipairs(values_of(P .. key, list)) do
    local data, number = list[2 * j - 1], list[2 * j]
    if holder and holder ~= number and not (freed[key] and freed[key][data] == holder) then
      local table_no, index = parts_of(key)
      return {'duplicate', table_no, index, holder}
    end
  end
end

-- Parents of new children must be there still.
for _, e in ipairs(exists) do
  local there
  if e[1] == 'row' then there = call('HEXISTS', P .. 'r' .. e[2], e[4])
  elseif e[1] == 'unique' then there = call('HEXISTS', P .. 'u' .. e[2] .. '.' .. e[3], e[4])
  else there = call('EXISTS', P .. 'i' .. e[2] .. '.' .. e[3] .. ':' .. e[4]) end
  if there == 0 then return {'changed', e[2], 'parent'} end
end
-- Parents that go must not have got children since.
for _, x in ipairs(childless) do
  local known = {}
  for _, n in ipairs(x[4]) do known[n] = true end
  local holders
  if x[1] == 'row' then
    holders = call('HEXISTS', P .. 'r' .. x[2], x[5]) == 1 and {x[5]} or {}
  elseif x[1] == 'unique' then
    holders = {call('HGET', P .. 'u' .. x[2] .. '.' .. x[3], x[5]) or nil}
  else
    holders = call('SMEMBERS', P .. 'i' .. x[2] .. '.' .. x[3] .. ':' .. x[5])
  end
  for _, n in ipairs(holders) do
    if not known[n] then return {'changed', x[2], n} end
  end
end
-- Tables that a serializable transaction read must not have been written since.
for _, r in ipairs(reads) do
  if (call('HGET', P .. 'writes', r[1]) or '0') ~= r[2] then return {'read', r[1]} end
end

-- What goes, before what comes: a key may go from one row to another.
for i = 1, #unique_del, 2 do
  local list, own = unique_del[i + 1], {}
  for j, holder in ipairs(values_of(P .. unique_del[i], list)) do
    if holder == list[2 * j] then own[#own + 1] = list[2 * j - 1] end
  end
  unique_del[i + 1] = own
end
call_each('HDEL', gone)
call_each('HDEL', unique_del)
call_each('SREM', set_del)
call_each('ZREM', order_del)
call_each('HSET', inserts)
call_each('HSET', updated)
call_each('HSET', unique_add)
call_each('SADD', set_add)
call_each('ZADD', order_add)
-- Each table remembers its last commit.
if #tables > 0 then
  local list = {}
  for i, table_no in ipairs(tables) do list[2 * i - 1], list[2 * i] = table_no, token end
  call('HSET', P .. 'writes', unpack(list))
end
-- Who reads a table page by page is told which of its rows have changed (scan.lua).  The
-- note outlives the mark that asks for it, and if there is too much to note, both go.
local function note(table_no)
  local key, log, numbers = 'r' .. table_no, P .. 'log' .. table_no, {}
  for i = 1, #inserts, 2 do
    local list = inserts[i] == key and inserts[i + 1] or {}
    for j = 1, #list, 2 do numbers[#numbers + 1] = list[j] end
  end
  for i = 1, #changes, 2 do
    local list = changes[i] == key and changes[i + 1] or {}
    for j = 1, #list do numbers[#numbers + 1] = list[j][1] end
  end
  local length = call('LLEN', log)
  if length + #numbers > 100000 then
    call('UNLINK', log, P .. 'scan' .. table_no)
    return
  end
  call_each('RPUSH', {'log' .. table_no, numbers})
  if length == 0 then call('EXPIRE', log, 60) end
end
if #tables > 0 then
  local marks = {}
  for i, table_no in ipairs(tables) do marks[i] = P .. 'scan' .. table_no end
  for i, mark in ipairs(call('MGET', unpack(marks))) do
    if mark then note(tables[i]) end
  end
end
for _, s in ipairs(used) do
  if tonumber(call('HGET', P .. 'ids', s[1]) or '0') < tonumber(s[2]) then
    call('HSET', P .. 'ids', s[1], s[2])
  end
end
let_go(holder, held)
call('SET', done, 1, 'EX', remember)
return {'done'}
