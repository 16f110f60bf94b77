#!lua
-- The schema: read it (no arguments but the prefix), or change it.
local P = KEYS[1]
local version = redis.call('HGET', P .. 'meta', 'schema') or '0'
if #ARGV == 0 then return {version, redis.call('HGETALL', P .. 'schema')} end
local expected, puts, drops, empty = unpack(cmsgpack.unpack(ARGV[1]))
if version ~= expected then return {'schema'} end
for _, t in ipairs(empty) do
  if redis.call('HLEN', P .. 'r' .. t) > 0 then return {'filled'} end
end
for _, name in ipairs(drops) do redis.call('HDEL', P .. 'schema', name) end
for _, put in ipairs(puts) do redis.call('HSET', P .. 'schema', put[1], put[2]) end
return {'done', tostring(redis.call('HINCRBY', P .. 'meta', 'schema', 1))}
