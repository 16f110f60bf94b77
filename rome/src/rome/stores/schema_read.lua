#!lua flags=no-writes
-- The schema: its version and its entries.
local P = KEYS[1]
return {redis.call('HGET', P .. 'meta', 'schema') or '0', redis.call('HGETALL', P .. 'schema')}
