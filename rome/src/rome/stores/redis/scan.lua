#!lua flags=allow-oom
-- One page of a read that is too large for one script (pages.py has the whole of it).  What
-- read.lua marks as shared stands before this.
local version, id, number, most, lease, task = unpack(cmsgpack.unpack(ARGV[1]))
-- ARGV[2] only makes the command long: see store.py.

-- Seconds that are spent on looking at rows, and bytes that these may have.
local most_s, most_bytes, AT_ONCE = 0.006, 1048576, 250
local LARGE_SET, LONG_LIST = 1000, 5000

local state = P .. 's:' .. id
local started, looked, bytes = clock(), 0, 0

local function over()
  return looked >= most or bytes >= most_bytes or clock() - started >= most_s
end

-- How many rows of this size to take at once.
local chunk = math.min(20, most)
local function count(rows, asked)
  local size = 0
  for i = 1, #rows do size = size + #rows[i] end
  looked, bytes = looked + asked, bytes + size
  local n = #rows > 0 and math.floor(131072 * #rows / (size + 1)) or AT_ONCE
  chunk = math.max(1, math.min(n, AT_ONCE, 2 * chunk, most))
end

local function set_key(table_no, index, data)
  return P .. 'i' .. table_no .. '.' .. index .. ':' .. data
end

-- How many rows are in sets, or far too many if they can't be had in parts.
local function size_of(table_no, index, keys)
  local total = 0
  for i = 1, #keys do
    local key = set_key(table_no, index, keys[i])
    local n = call('SCARD', key)
    -- All of such a set come at once.
    if n > LONG_LIST and call('OBJECT', 'ENCODING', key) == 'intset' then n = 2147483647 end
    total = total + n
  end
  return total
end

-- Begins to read: from now on commits note the numbers of the rows that they change.
local function begin()
  local request, tables, measured = unpack(task)
  local marks, offsets, lengths, sizes = {}, {}, {}, {}
  for i, t in ipairs(tables) do
    local mark, log = P .. 'scan' .. t, P .. 'log' .. t
    marks[i] = call('GET', mark)
    if not marks[i] then
      call('UNLINK', log)
      call('SET', mark, id, 'PX', lease)
      marks[i] = id
    end
    offsets[i], lengths[i] = call('LLEN', log), call('HLEN', P .. 'r' .. t)
  end
  for i, lookup in ipairs(measured) do
    local table_no, kind, index, keys = unpack(lookup)
    if kind == 'order' then sizes[i] = span(table_no, {kind, index, keys})
    else sizes[i] = size_of(table_no, index, keys) end
  end
  call('HSET', state, 'request', request, 'at', cmsgpack.pack({number + 1, marks, offsets, {}}))
  call('PEXPIRE', state, lease)
  return {'begun', lengths, sizes}
end

if (call('HGET', P .. 'meta', 'schema') or '0') ~= version then return {'schema'} end
if number == 0 then return begin() end

local saved = call('HMGET', state, 'request', 'at')
if not saved[1] then return {'lapsed'} end
local steps, tables, watched = unpack(cmsgpack.unpack(saved[1]))
local expected, marks, offsets, cursors = unpack(cmsgpack.unpack(saved[2]))
if expected ~= number then return {'lapsed'} end
for i, t in ipairs(tables) do
  local mark, log = P .. 'scan' .. t, P .. 'log' .. t
  -- If nobody was here for too long, or too much was changed, nothing is noted any more.
  if call('GET', mark) ~= marks[i] or call('LLEN', log) < offsets[i] then return {'lapsed'} end
  call('PEXPIRE', mark, lease)
  -- Longer, so that it is there as long as the mark.
  call('PEXPIRE', log, 2 * lease)
end

-- A list of rows of a table, without those that aren't there.
local function rows_of(table_no, numbers, first_one, last_one)
  local values = call('HMGET', P .. 'r' .. table_no, unpack(numbers, first_one, last_one))
  local rows, kept, n = {}, {}, 0
  for i = 1, #values do
    if values[i] then
      n = n + 1
      rows[n], kept[n] = values[i], numbers[first_one + i - 1]
    end
  end
  rows.numbers = kept
  count(rows, #values)
  return rows
end

-- Those of a step, of any rows of its table.
local function of_step(step, rows)
  rows.defaults = {}
  for _, f in ipairs(step[4]) do rows.defaults[f[1]] = f[2] end
  return passing(rows, step[3])
end

-- Numbers and rows by turns, with the columns that are wanted.
local function add(out, step, rows)
  local parts, numbers, n = step[7] and parts_of(rows, step[7]) or rows, rows.numbers, #out
  for i = 1, #rows do
    out[n + 1], out[n + 2] = numbers[i], parts[i]
    n = n + 2
  end
end

local out, done, left, large = {}, 0, {}, {}
local step = task and steps[task[2] + 1]
local collected = {numbers = {}, defaults = {}}
local together = step and task[1] ~= 'walk' and (step[8] or step[6] > 0)
if together then most_s = most_s / 2 end  -- they will be looked at again

-- Takes rows that the task has found; how many of them are wanted.
local function take(rows)
  rows = of_step(step, rows)
  if not together then
    add(out, step, rows)
    return #rows
  end
  local n = #collected
  collected.defaults = rows.defaults
  for i = 1, #rows do collected[n + i], collected.numbers[n + i] = rows[i], rows.numbers[i] end
  return #rows
end

-- Takes the rows with these numbers; what there is no time for is left to be asked for by number.
local function take_numbers(numbers)
  local at = 0
  while at < #numbers and (at == 0 or not over()) do
    local stop = math.min(at + chunk, #numbers)
    take(rows_of(step[1], numbers, at + 1, stop))
    at = stop
  end
  for i = at + 1, #numbers do left[#left + 1] = numbers[i] end
end

local tasks = {}

-- The next part of a table.
function tasks.whole(name)
  local cursor = cursors[name] or '0'
  if cursor == 'end' then done = 1 return end
  repeat
    local page = call('HSCAN', P .. 'r' .. step[1], cursor, 'COUNT', chunk)
    local rows = paired(page[2])
    cursor = page[1]
    count(rows, #rows)
    take(rows)
  until cursor == '0' or over()
  done = cursor == '0' and 1 or 0
  cursors[name] = done == 1 and 'end' or cursor
end

-- The next part of a large set; only what is in the other sets as well.
function tasks.set(name, index, data, others)
  local cursor = cursors[name] or '0'
  if cursor == 'end' then done = 1 return end
  repeat
    local page = call('SSCAN', set_key(step[1], index, data), cursor, 'COUNT', chunk)
    local numbers = page[2]
    cursor = page[1]
    for _, other in ipairs(others) do
      local key, kept = set_key(step[1], other[1], other[2]), {}
      for start = 1, #numbers, 1000 do
        local stop = math.min(start + 999, #numbers)
        local there = call('SMISMEMBER', key, unpack(numbers, start, stop))
        for i = 1, #there do
          if there[i] == 1 then kept[#kept + 1] = numbers[start + i - 1] end
        end
      end
      looked = looked + math.ceil((#numbers - #kept) / 4)
      numbers = kept
    end
    if #numbers > 0 then take_numbers(numbers) end
  until cursor == '0' or over()
  done = cursor == '0' and 1 or 0
  cursors[name] = done == 1 and 'end' or cursor
end

-- The next part of a range of an ordered index, from behind the last entry.
function tasks.order(name, index, keys)
  local after = cursors[name]
  if after == 'end' then done = 1 return end
  repeat
    local n, numbers = math.min(chunk, most - looked)
    numbers, after = stretch(step[1], {'order', index, keys}, after, n)
    if #numbers > 0 then take(rows_of(step[1], numbers, 1, #numbers)) end
  until not after or over()
  done = after and 0 or 1
  cursors[name] = after or 'end'
end

-- The same, only until so many rows that are wanted were found since the scan began: in
-- pages that are sent together the last ones may have nothing to do.
function tasks.walk(name, index, keys, wanted)
  local after, n = unpack(cursors[name] or {false, 0})
  if after == 'end' then done = 1 return end
  while n < wanted do
    local numbers
    numbers, after = stretch(step[1], {'order', index, keys}, after, math.min(chunk, most - looked))
    if #numbers > 0 then n = n + take(rows_of(step[1], numbers, 1, #numbers)) end
    if not after then
      after, done = 'end', 1
      break
    end
    if over() then break end
  end
  cursors[name] = {after, n}
end

-- What keys find; `done` is how many of them there was time for.
function tasks.keys(kind, index, keys)
  local numbers = keys
  if kind == 'unique' then
    numbers = {}
    for i, n in ipairs(call('HMGET', P .. 'u' .. step[1] .. '.' .. index, unpack(keys))) do
      if n then numbers[#numbers + 1] = n end
    end
  elseif kind == 'set' then
    numbers = {}
    while done < #keys and #numbers < LARGE_SET and #numbers < most do
      local key = set_key(step[1], index, keys[done + 1])
      done = done + 1
      if call('SCARD', key) > LARGE_SET then large[#large + 1] = keys[done]
      else
        for _, n in ipairs(call('SMEMBERS', key)) do numbers[#numbers + 1] = n end
      end
    end
  end
  if kind ~= 'set' then done = #keys end
  if #numbers > 0 then take_numbers(numbers) end
end

local looked_by_task = 0
if task then
  tasks[task[1]](unpack(task, 3))
  looked_by_task = looked
  if step[8] then
    out = summed_up(collected, step[8][1], step[8][2]) or {'no'}
  elseif together then
    local rows = collected
    if #rows > step[6] then rows = first(rows, step[5], step[6]) end
    add(out, step, rows)
  end
end

-- Rows that were changed since the last page: their numbers, and those that a step wants.
local changed, more = {}, 0
for i, t in ipairs(tables) do
  local log, start = P .. 'log' .. t, offsets[i]
  local length, numbers, seen, wanted = call('LLEN', log), {}, {}, {}
  while offsets[i] < length and (offsets[i] == start or not over()) do
    local some, stop = {}, math.min(offsets[i] + chunk, length)
    for _, n in ipairs(call('LRANGE', log, offsets[i], stop - 1)) do
      if not seen[n] then
        seen[n] = true
        some[#some + 1], numbers[#numbers + 1] = n, n
      end
    end
    offsets[i] = stop
    local rows = rows_of(t, some, 1, #some)
    for place, other in ipairs(steps) do
      if other[1] == t and not other[8] then
        local copy = {numbers = rows.numbers}
        for j = 1, #rows do copy[j] = rows[j] end
        wanted[place] = wanted[place] or {}
        add(wanted[place], other, of_step(other, copy))
      end
    end
  end
  if offsets[i] < length then more = 1 end
  local pairs_of = {}
  for place in ipairs(steps) do
    if wanted[place] then pairs_of[#pairs_of + 1] = {place - 1, wanted[place]} end
  end
  if #numbers > 0 then changed[#changed + 1] = {t, numbers, pairs_of} end
end

call('HSET', state, 'at', cmsgpack.pack({number + 1, marks, offsets, cursors}))
call('PEXPIRE', state, lease)
local commits = #watched > 0 and call('HMGET', P .. 'writes', unpack(watched)) or {}
return {'page', out, done, looked_by_task, left, large, changed, more, commits}
