-- Let go rows that a holder holds: keys and row numbers by turns.  What has lapsed since may be
-- another's.
local function let_go(holder, held)
  for i = 1, #held, 2 do
    local key, mine = KEYS[1] .. held[i], {}
    for _, number in ipairs(held[i + 1]) do
      local entry = redis.call('HGET', key, number)
      if entry and string.match(entry, '^%d+ (.*)$') == holder then mine[#mine + 1] = number end
    end
    for _, number in ipairs(mine) do redis.call('HDEL', key, number) end
  end
end
