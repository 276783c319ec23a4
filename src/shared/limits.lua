-- The limits of one namespace. KEYS[1] is the set of rows; ARGV[1] names what to do, ARGV[2] the row that it is done in, ARGV[3]
-- the row of the instance that asks, and ARGV[4] that instance's epoch.
-- Every key has the namespace as its hash tag, so all of them are on one node of a cluster.
--
--   {ns}:rows             the names of rows
--   {ns}:row:<instance>   v        the epoch of its instance; it is there, although the row holds nothing else
--                         c<group> the connections of a client, 8 bytes each; without a limit per client each is by itself
--                         h<hub>   how many connections a hub has
--                         t        how many there are in all
--   {ns}:rate:<kind><client>       until when the bucket's tokens are spent, in microseconds
--   {ns}:gone:<connection>         an id that was connected a moment ago
--   {ns}:twice            <connection> the rows that hold it, if there are several, each with its hub; the first counts it
--
-- A row expires when its instance has not been heard of for LIFE milliseconds, and all that it held is free. Several rows may hold
-- an id: a session is polled through several gateways, or a client comes back through another gateway before the first has
-- noticed the end. Only a row's own instance takes an id out of it, else a request that a hub refuses would end the connection
-- of another. So each row lists the id, and one row counts it for its hub and in total:
--
--                                        row a          row b          twice
--   connect k1 through a                 k1, t 1
--   the next poll comes through b        k1, t 1        k1             k1: a b
--   a has waited in vain for a poll                     k1, t 1
--
-- Gateways may have different names for a hub, if only one of them has seen a negotiate of it. Each row counts by its own.
--
-- An instance that gets no answer begins another epoch, and its row anew with it. What it asked before may still arrive: a proxy or
-- Redis itself may have stood still. Nothing of an older epoch is done.
--
-- The answer is a number: the limit that is reached, and 16 if the row was not there.

local LIFE, REMEMBERED = 15000, 15000
local rows, own, asker, epoch = KEYS[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local prefix = string.sub(rows, 1, -5)
local twice = prefix .. 'twice'

local function row_key(row)
  return prefix .. 'row:' .. row
end

local function position(list, connection)
  for at = 1, #list, 8 do
    if string.sub(list, at, at + 7) == connection then
      return at
    end
  end
end

local function add(row, hub, by)
  for _, field in ipairs({ 'h' .. hub, 't' }) do
    if redis.call('HINCRBY', row_key(row), field, by) <= 0 then
      redis.call('HDEL', row_key(row), field)
    end
  end
end

-- Those holders of a connection that several rows hold whose rows `keep` names, as pairs of a row and its name for the hub; and the
-- row that counts it.
local function holders_of(held, keep)
  local all, holders = cmsgpack.unpack(held), {}
  for _, holder in ipairs(all) do
    if keep(holder[1]) then
      table.insert(holders, holder)
    end
  end
  return holders, all[1][1]
end

-- Writes down who holds a connection. The first counts it: `counter` has done so until now.
local function hold(connection, holders, counter)
  local first = holders[1]
  if first and first[1] ~= counter then
    add(first[1], first[2], 1)
  end
  if #holders > 1 then
    redis.call('HSET', twice, connection, cmsgpack.pack(holders))
  else
    redis.call('HDEL', twice, connection)
  end
end

-- A row has gone: others count what it has counted. Looks through all that several rows hold, which is rare enough.
local function pass_on(gone)
  local lives = {}
  for _, row in ipairs(redis.call('SMEMBERS', rows)) do
    lives[row] = row ~= gone and redis.call('HEXISTS', row_key(row), 'v') == 1
  end
  local all = redis.call('HGETALL', twice)
  for at = 1, #all, 2 do
    hold(all[at], holders_of(all[at + 1], function(row) return lives[row] end))
  end
end

-- The rows that hold a connection, and what there is in all rows: ids in its group, connections at its hub and in total.
local function look(group, connection, hub)
  local holders, ids, of_client, at_hub, total, has_gone = {}, {}, 0, 0, 0, false
  for _, row in ipairs(redis.call('SMEMBERS', rows)) do
    local found = redis.call('HMGET', row_key(row), 'v', 'c' .. group, 'h' .. hub, 't')
    if found[1] then
      local list = found[2] or ''
      for at = 1, #list, 8 do
        local id = string.sub(list, at, at + 7)
        if id == connection then
          table.insert(holders, row)
        end
        if not ids[id] then
          ids[id] = true
          of_client = of_client + 1
        end
      end
      at_hub = at_hub + tonumber(found[3] or 0)
      total = total + tonumber(found[4] or 0)
    else
      redis.call('SREM', rows, row)
      has_gone = true
    end
  end
  if has_gone then
    pass_on()
    return look(group, connection, hub)
  end
  return holders, of_client, at_hub, total
end

-- Lets the own row hold a connection, which the rows `others` hold already.
local function join(group, connection, hub, others)
  -- Another instance's row may have expired. That instance will write it anew.
  if own ~= asker and redis.call('HEXISTS', row_key(own), 'v') == 0 then
    return
  end
  local list = redis.call('HGET', row_key(own), 'c' .. group) or ''
  if position(list, connection) then
    return
  end
  redis.call('HSET', row_key(own), 'c' .. group, list .. connection)
  local held = redis.call('HGET', twice, connection)
  if not held and not others[1] then
    return add(own, hub, 1)
  end
  -- A row that was the only one will say its name for the hub when it leaves.
  local holders, counter = { { others[1], '' } }, others[1]
  if held then
    holders, counter = holders_of(held, function(row) return row ~= own end)
  end
  table.insert(holders, { own, hub })
  hold(connection, holders, counter)
end

local function leave(row, group, connection, hub)
  local list = redis.call('HGET', row_key(row), 'c' .. group)
  local at = list and position(list, connection)
  if not at then
    return
  end
  local rest = string.sub(list, 1, at - 1) .. string.sub(list, at + 8)
  if rest == '' then
    redis.call('HDEL', row_key(row), 'c' .. group)
  else
    redis.call('HSET', row_key(row), 'c' .. group, rest)
  end
  local held = redis.call('HGET', twice, connection)
  if not held then
    return add(row, hub, -1)
  end
  local holders, counter = holders_of(held, function(holder) return holder ~= row end)
  if counter == row then
    add(row, hub, -1)
  end
  hold(connection, holders, counter)
end

-- The generic cell rate algorithm, as in src/limit/rate.rs. Times are Redis' own, so clocks of gateways do not matter.
local function has_token(kind, client, interval, burst, spend)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local key = prefix .. 'rate:' .. kind .. client
  local full = math.max(now, tonumber(redis.call('GET', key) or 0)) + interval
  if full - now > interval * burst then
    return false
  end
  if spend then
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
  end
  return true
end

local function full(of_client, at_hub, total, limits)
  for code, found in ipairs({ of_client, at_hub, total }) do
    local limit = tonumber(limits[code])
    if limit >= 0 and found >= limit then
      return code
    end
  end
  return 0
end

local CONNECT_RATE, NEGOTIATE_RATE = 4, 5
local act = {}

-- Whether one more connection of a client would be admitted. Takes a token of its negotiates.
-- client, hub, three limits, interval and burst of negotiates and of connects
function act.negotiate(client, hub, per_client, per_hub, total, interval, burst, connect_interval, connect_burst)
  if tonumber(burst) > 0 and not has_token('n', client, tonumber(interval), tonumber(burst), true) then
    return NEGOTIATE_RATE
  end
  if tonumber(connect_burst) > 0
    and not has_token('c', client, tonumber(connect_interval), tonumber(connect_burst), false) then
    return CONNECT_RATE
  end
  local _, of_client, at_hub, all = look(client, '', hub)
  return full(of_client, at_hub, all, { per_client, per_hub, total })
end

-- Admits a connection. Once more with the same id changes nothing.
-- group, connection, hub, client, three limits, interval and burst of connects, whether the id is old, whether limits are enforced
function act.connect(group, connection, hub, client, per_client, per_hub, total, interval, burst, old, enforced)
  local holders, of_client, at_hub, all = look(group, connection, hub)
  if #holders > 0 then
    join(group, connection, hub, holders)
    return 0
  end
  local code = 0
  if tonumber(burst) > 0 and redis.call('EXISTS', prefix .. 'gone:' .. connection) == 0 then
    -- An id whose age shows that it was connected before takes no token: see act.charge.
    local kind, spend = 'c', true
    if old == '1' then
      kind, spend = 't', false
    end
    if not has_token(kind, client, tonumber(interval), tonumber(burst), spend) then
      code = CONNECT_RATE
    end
  end
  if code == 0 then
    code = full(of_client, at_hub, all, { per_client, per_hub, total })
  end
  if code == 0 or enforced == '0' then
    join(group, connection, hub, holders)
  end
  return code
end

-- The hub did not know an id that passed without a token because of its age.
-- client, interval and burst of connects
function act.charge(client, interval, burst)
  interval, burst = tonumber(interval), tonumber(burst)
  if not has_token('c', client, interval, burst, true) then
    has_token('t', client, interval, burst, true)
  end
  return 0
end

-- Writes connections that are there, whatever the limits.
-- group, connection and hub of each
function act.write(...)
  for at = 1, select('#', ...), 3 do
    local group, connection, hub = select(at, ...)
    join(group, connection, hub, (look(group, connection, hub)))
  end
  return 0
end

-- Takes connections off that have ended.
-- row, group, connection and hub of each, and whether its id is remembered
function act.leave(...)
  for at = 1, select('#', ...), 5 do
    local row, group, connection, hub, is_remembered = select(at, ...)
    leave(row, group, connection, hub)
    if is_remembered == '1' then
      redis.call('SET', prefix .. 'gone:' .. connection, '', 'PX', REMEMBERED)
    end
  end
  return 0
end

-- Says that the instance lives.
function act.beat()
  return 0
end

-- The same of an instance whose row begins anew.
act.reset = act.beat

local mine = row_key(asker)
local known = tonumber(redis.call('HGET', mine, 'v') or -1)
if known > epoch then
  return 0
end
-- A full Redis refuses the first write of a script, and none after it. It would not refuse DEL.
redis.call('SADD', rows, asker)
local lost = 0
if ARGV[1] == 'reset' or known < epoch then
  redis.call('DEL', mine)
  pass_on(asker)
  redis.call('HSET', mine, 'v', epoch)
  lost = 16
end
for _, key in ipairs({ mine, rows, twice }) do
  redis.call('PEXPIRE', key, LIFE)
end
return lost + act[ARGV[1]](unpack(ARGV, 5))
