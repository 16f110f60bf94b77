-- Leases of tables: until one ends nobody writes the table, so processes may answer SELECTs from
-- what they have cached of it.  This stands before the scripts that give leases, and that wait for
-- their ends.  ARGV[5]: the run id of the server, which no other has and no later run of it.
--
-- P leases: table -> until when (ms), and for how long it was given; with 'no' before the number,
-- when the next one may be given; run: of the server that has noted all this; barrier: until when
-- there may be leases that another server has given, whose notes may be lost.  The field `leases`
-- of P meta is there since there may be leases at all.
local LONGEST = 5000

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- See to it that what this server has noted is all there is, from a moment on.
local function know_leases(now)
  local key = KEYS[1] .. 'leases'
  local run, barrier = unpack(redis.call('HMGET', key, 'run', 'barrier'))
  if run ~= ARGV[5] then
    barrier = now + LONGEST
    redis.call('HSET', key, 'run', ARGV[5], 'barrier', string.format('%.0f', barrier))
  end
  return tonumber(barrier or 0)
end

-- How many ms a writer of some tables (nil: of any) has to wait for leases; no more are given of
-- these tables until he has written, and for ten times as long as they were given.
local function wait_for_leases(tables)
  local key, now = KEYS[1] .. 'leases', clock()
  local last, entries = know_leases(now), {}
  if not tables then
    tables = {}
    for _, name in ipairs(redis.call('HKEYS', key)) do
      if string.match(name, '^%d+$') then tables[#tables + 1] = name end
    end
  end
  if #tables > 0 then entries = redis.call('HMGET', key, unpack(tables)) end
  for i, entry in ipairs(entries) do
    if entry then
      local stop, length = string.match(entry, '^(%d+) (%d+)$')
      last = math.max(last, tonumber(stop))
      redis.call('HSET', key, 'no' .. tables[i], string.format('%.0f', now + 10 * length))
    end
  end
  return math.max(0, last - now)
end
