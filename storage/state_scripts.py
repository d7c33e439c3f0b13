"""The Lua that runs inside Redis or Valkey: every change that reads before it writes, as one atomic round trip.

`storage.state_redis` calls these. They use the server's own clock (TIME), so that the clocks of the machines do
not matter, and core commands only: Redis 6.2 or newer, Valkey, no modules. KEYS[1] is the subject; large numbers
go through `%.0f`, because Lua would print them with 14 digits.
"""

_NOW = """
local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local millis = math.floor(micros / 1000)
local function plain(number) return string.format('%.0f', number) end
"""

LEASE = (
    _NOW
    + """
-- KEYS: lease, fence. ARGV: token, ttl in ms, life of the fence in ms. Returns the fence, or false when taken.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return false end
local fence = plain(math.max((tonumber(redis.call('GET', KEYS[2])) or 0) + 1, millis))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], fence, 'PX', ARGV[3])
return fence
"""
)
"""Seeded from the clock, so that the fence grows even when a flush, or its own expiry, took the counter away.

The same token may ask again: a client repeats a request whose answer was lost.
"""

CLAIM = """
-- KEYS: claim. ARGV: token, ttl in ms. Returns 1, or 0 when it is another's. The same token may ask again.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

RENEW_LEASE = """
-- KEYS: lease or claim. ARGV: token, ttl in ms. Returns 1, or 0 when the lease is another's or nobody's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

RELEASE_LEASE = """
-- KEYS: lease or claim. ARGV: token.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""

_RUN = """
local told = redis.pcall('INFO', 'server')
local run = type(told) == 'string' and string.match(told, 'run_id:(%x+)') or 'unknown'
"""

_KNOWS_ALL = (
    _NOW
    + _RUN
    + """
local function knows_all(key, grace)
  local since = tonumber(redis.call('HGET', key, run))
  if not since or since > millis then
    redis.call('DEL', key)
    redis.call('HSET', key, run, plain(millis))
    since = millis
  end
  return millis - since >= tonumber(grace)
end
"""
)
"""Tells whether every permit in use is in this state: it is not while the server runs on less than it was told.

The marker holds since when, under the server's own id of its run: a flush takes the marker away, and a restart, with
its data, without them or with those of a minute ago, or a failover to a replica that lags behind, makes another id.
Where INFO may not be used (`+info`) only a flush and a restart without data are noticed. A clock that was set back
begins anew.
"""

ACQUIRE = (
    _KNOWS_ALL
    + """
-- KEYS: permits, marker. ARGV: token, limit, life in ms, grace in ms. Returns 1, or 0 when all are, or may be, taken.
if not knows_all(KEYS[2], ARGV[4]) then return 0 end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', plain(millis))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], plain(millis + ARGV[3]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

RENEW_PERMITS = (
    _KNOWS_ALL
    + """
-- KEYS: permits, marker. ARGV: life in ms, grace in ms, tokens. Returns the tokens that lapsed. They stay lapsed, for
-- their places may be taken; but while nothing is granted, what is not known was forgotten, and is written down again.
local forgotten, lapsed = not knows_all(KEYS[2], ARGV[2]), {}
for i = 3, #ARGV do
  if forgotten or redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], plain(millis + ARGV[1]), ARGV[i])
  else
    lapsed[#lapsed + 1] = ARGV[i]
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return lapsed
"""
)

NOBODY_IN_FLIGHT = (
    _RUN
    + """
-- KEYS: marker.
redis.call('DEL', KEYS[1])
return redis.call('HSET', KEYS[1], run, '0')
"""
)

RESERVE = (
    _NOW
    + """
-- KEYS: pace. ARGV: microseconds between two requests. Returns microseconds to wait.
local place = math.max(tonumber(redis.call('GET', KEYS[1])) or 0, micros)
local following = place + ARGV[1]
redis.call('SET', KEYS[1], plain(following), 'PX', plain(math.ceil((following - micros) / 1000)))
return plain(place - micros)
"""
)
"""The generic cell rate algorithm with a burst of one: the key holds when the next request may leave."""

PAUSE = """
-- KEYS: pause. ARGV: until in microseconds, reason, ms from now until then. A shorter pause changes nothing.
local kept = tonumber(redis.call('HGET', KEYS[1], 'until'))
if kept and kept >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'until', ARGV[1], 'reason', ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
"""

SET_WATERMARK = """
-- KEYS: watermark. ARGV: value in microseconds, fence. Returns 1, or 0 for an older value or fence.
local kept = redis.call('HMGET', KEYS[1], 'value', 'fence')
if kept[1] and (tonumber(kept[1]) or 0) > tonumber(ARGV[1]) then return 0 end
if kept[2] and (tonumber(kept[2]) or 0) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'fence', ARGV[2])
return 1
"""

REMEMBER_HELD = """
-- KEYS: day. ARGV: life in ms, the marker, rids. 1,000 at a time: Lua's stack is limited to about 8,000.
redis.call('DEL', KEYS[1])
for i = 2, #ARGV, 1000 do redis.call('SADD', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV))) end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""

ADD_HELD = """
-- KEYS: day. ARGV: rids. The day's life is not extended: it is to be read from the bucket again.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('SADD', KEYS[1], unpack(ARGV)) end
return 1
"""

SAVE_ATTEMPT = """
-- KEYS: attempts. ARGV: rid, text, life in ms.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
"""

OCCUPY = """
-- KEYS: text. ARGV: owner, ttl in ms. Returns 1, or 0 when it is another's.
local kept = redis.call('GET', KEYS[1])
if kept and kept ~= '' and kept ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

ENQUEUE = (
    _NOW
    + """
-- KEYS: queued. ARGV: ttl in ms, rids. Returns the rids that were not there, in their order.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', plain(millis))
local until_ms, fresh = plain(millis + ARGV[1]), {}
for i = 2, #ARGV do
  if redis.call('ZADD', KEYS[1], 'NX', until_ms, ARGV[i]) == 1 then fresh[#fresh + 1] = ARGV[i] end
end
redis.call('PEXPIRE', KEYS[1], plain(math.max(redis.call('PTTL', KEYS[1]), ARGV[1])))
return fresh
"""
)

ENQUEUED = (
    _NOW
    + """
-- KEYS: queued. Returns how many marks have not lapsed.
return redis.call('ZCOUNT', KEYS[1], '(' .. plain(millis), '+inf')
"""
)

NOTE = """
-- KEYS: note. ARGV: field, value, field, value... Replaces the record.
redis.call('DEL', KEYS[1])
for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
