-- Let go what a holder holds: keys of the store, and names of rows and keys in them, by turns.  What
-- has lapsed since may be another's.
local function let_go(holder, held)
  for i = 1, #held, 2 do
    local key, mine = KEYS[1] .. held[i], {}
    for _, name in ipairs(held[i + 1]) do
      local entry = redis.call('HGET', key, name)
      if entry and string.match(entry, '^%d+ (.*)$') == holder then mine[#mine + 1] = name end
    end
    for _, name in ipairs(mine) do redis.call('HDEL', key, name) end
  end
end
