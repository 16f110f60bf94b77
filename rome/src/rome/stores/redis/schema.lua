#!lua
-- A change of the schema: its conditions first, then all of it.
local P = KEYS[1]
local version = redis.call('HGET', P .. 'meta', 'schema') or '0'
local expected, puts, drops, empty, unwritten, complete, token, remember =
  unpack(cmsgpack.unpack(ARGV[1]))
-- Sent again, as its answer was lost: it isn't done again.
local done = redis.call('GET', P .. 't:' .. token)
if done then return {'done', done} end
if version ~= expected then return {'schema'} end
if redis.call('HEXISTS', P .. 'meta', 'leases') == 1 then
  if ARGV[5] == '' then return {'unnamed'} end
  local wait = wait_for_leases()
  if wait > 0 then return {'leased', wait} end
end
for _, t in ipairs(empty) do
  if redis.call('HLEN', P .. 'r' .. t) > 0 then return {'filled'} end
end
for _, x in ipairs(unwritten) do
  if (redis.call('HGET', P .. 'writes', x[1]) or '0') ~= x[2] then return {'written'} end
end
for _, x in ipairs(complete) do
  local kind, t, index, count = unpack(x)
  local there
  if kind == 'row' then there = redis.call('HLEN', P .. 'r' .. t)
  elseif kind == 'unique' then there = redis.call('HLEN', P .. 'u' .. t .. '.' .. index)
  else there = redis.call('ZCARD', P .. 'o' .. t .. '.' .. index) end
  if there ~= count then return {'written'} end
end
for _, name in ipairs(drops) do redis.call('HDEL', P .. 'schema', name) end
for _, put in ipairs(puts) do redis.call('HSET', P .. 'schema', put[1], put[2]) end
-- A version that never was before, not even in data that a crash or a failover has lost:
-- clients may still have the schema that belonged to it.  It begins with the time at which
-- the database was made: clients that knew an earlier one forget the numbers they had from it.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local born, last = string.match(version, '^(%d+)%.(%d+)$')
local new = string.format('%.0f', math.max(tonumber(last or 0) + 1, now))
new = (born or new) .. '.' .. new
redis.call('HSET', P .. 'meta', 'schema', new)
redis.call('SET', P .. 't:' .. token, new, 'EX', remember)
return {'done', new}
