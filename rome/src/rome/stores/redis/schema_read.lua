#!lua flags=no-writes
-- The schema: its version, and its entries unless the version is the one that is known.
local P = KEYS[1]
local version = redis.call('HGET', P .. 'meta', 'schema') or '0'
if version == ARGV[1] then return {version} end
return {version, redis.call('HGETALL', P .. 'schema')}
