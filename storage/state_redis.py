"""Disposable state in Redis or Valkey, shared by all workers on all machines.

`storage.state` says what each method promises; `storage.state_scripts` has the Lua, `storage.state_server` the
connection and its errors. One round trip an operation; every key begins with `callvault:{namespace}:`; every
expiry is the server's. Flush it at any moment: everything is absent then, nothing raises.
"""

import secrets
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from config.clock import Clock
from storage import state_scripts as lua
from storage.state import PERMIT_LIFE, Attempt, Pause, StateRefused, StateUnfit
from storage.state_fitness import judge
from storage.state_records import attempt_from_text, attempt_text, from_micros, to_micros
from storage.state_server import Server

_PERMIT_MS = round(PERMIT_LIFE * 1000)
_DAY_MS = 24 * 3600 * 1000
_FENCE_MS = 7 * _DAY_MS  # far longer than any lease; the next fence is seeded from the clock
_HELD_MS = _DAY_MS  # a remembered day is read from the bucket again once a day
_ATTEMPTS_MS = 30 * _DAY_MS
_UNCHECKED = "whether it throws keys away or is a cluster could not be checked"
_REMEMBERED = "\n"  # tells an empty remembered day from an unknown one; no rid holds a line break


class RedisClaim:
    """Implements `storage.state.Claim`; made by `RedisState.claim`."""

    def __init__(self, server: Server, key: str, token: str, ttl_ms: int) -> None:
        self._server = server
        self._key = key
        self._token = token
        self._ttl_ms = ttl_ms

    async def renew(self) -> bool:
        """Extend by another `ttl`; False when it was lost."""
        return bool(await self._server.run(lua.RENEW_LEASE, [self._key], self._token, self._ttl_ms))

    async def release(self) -> None:
        """Give it back; does nothing when it was lost to another holder."""
        await self._server.run(lua.RELEASE_LEASE, [self._key], self._token)


class RedisLease(RedisClaim):
    """Implements `storage.state.Lease`; made by `RedisState.lease`."""

    def __init__(self, server: Server, key: str, token: str, ttl_ms: int, fence: int) -> None:
        super().__init__(server, key, token, ttl_ms)
        self._fence = fence

    @property
    def fence(self) -> int:
        """A number that grows with every lease granted under the same name."""
        return self._fence


class RedisState:
    """Implements `storage.state.State`.

    `url` and the options are those of `storage.state_server.Server`; StateRefused when they name no server. Opens no
    connection before the first call; use it in one event loop. `grace` is for how many seconds no permit is granted
    after they were lost; less than `PERMIT_LIFE` is right only where no request can be open then.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        clock: Clock,
        *,
        grace: float = PERMIT_LIFE,
        **options: Any,
    ) -> None:
        self._grace_ms = round(grace * 1000)
        self._server = Server(url, **options)
        self._prefix = f"callvault:{namespace}:"
        self._clock = clock

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    async def lease(self, name: str, ttl: float) -> RedisLease | None:
        """Try to get the lease `name`; None when somebody else has it."""
        key, token, ttl_ms = self._key("lease", name), secrets.token_hex(16), _millis(ttl)
        fence = await self._server.run(lua.LEASE, [key, self._key("fence", name)], token, ttl_ms, _FENCE_MS)
        return RedisLease(self._server, key, token, ttl_ms, int(fence)) if fence else None

    async def claim(self, name: str, ttl: float) -> RedisClaim | None:
        """Try to get the claim `name`; None when somebody else has it."""
        key, token, ttl_ms = self._key("claim", name), secrets.token_hex(16), _millis(ttl)
        taken = await self._server.run(lua.CLAIM, [key], token, ttl_ms)
        return RedisClaim(self._server, key, token, ttl_ms) if taken else None

    async def acquire(self, source: str, limit: int) -> str | None:
        """Take one of `limit` permits; None when all are taken, or may be taken by who has not said so yet."""
        token, keys = secrets.token_hex(16), [self._key("permits", source), self._key("permits-since")]
        taken = await self._server.run(lua.ACQUIRE, keys, token, limit, _PERMIT_MS, self._grace_ms)
        return token if taken else None

    async def renew(self, source: str, tokens: Iterable[str]) -> frozenset[str]:
        """Extend permits that are still in use, and return those that lapsed."""
        keys = [self._key("permits", source), self._key("permits-since")]
        return frozenset(await self._server.run(lua.RENEW_PERMITS, keys, _PERMIT_MS, self._grace_ms, *tokens))

    async def nobody_in_flight(self) -> None:
        """Have permits granted at once, for whoever knows that no worker of this archive has a request open."""
        await self._server.run(lua.NOBODY_IN_FLIGHT, [self._key("permits-since")])

    async def release(self, source: str, token: str) -> None:
        """Give a permit back."""
        await self._server.call("ZREM", self._key("permits", source), token)

    async def reserve(self, source: str, per_second: float) -> float:
        """Book the next place in the source's pace and return how many seconds to wait for it."""
        apart = round(1_000_000 / per_second)
        return int(await self._server.run(lua.RESERVE, [self._key("pace", source)], apart)) / 1_000_000

    async def pause(self, source: str, until: datetime, reason: str) -> None:
        """Leave the source alone until then. Kept for the time left by the caller's clock, whatever the server's."""
        left = until - self._clock.now()
        if left > timedelta(0):
            key = self._key("pause", source)
            await self._server.run(lua.PAUSE, [key], to_micros(until), reason, _millis(left.total_seconds()))

    async def paused(self, source: str) -> Pause | None:
        """Return the pause in force, if any."""
        until, reason = await self._server.call("HMGET", self._key("pause", source), "until", "reason")
        ends = from_micros(until)
        return Pause(ends, reason or "") if ends and ends > self._clock.now() else None

    async def unpause(self, source: str) -> None:
        """Forget the pause."""
        await self._server.call("DEL", self._key("pause", source))

    async def watermark(self, source: str) -> datetime | None:
        """Return the watermark; None when it must be read from the bucket."""
        value = await self._server.call("HGET", self._key("watermark", source), "value")
        return from_micros(value)

    async def set_watermark(self, source: str, value: datetime, fence: int) -> bool:
        """Move the watermark forward. False, and nothing changes, for an older value or an older fence."""
        key = self._key("watermark", source)
        return bool(await self._server.run(lua.SET_WATERMARK, [key], to_micros(value), fence))

    async def held(self, source: str, day: date) -> frozenset[str] | None:
        """Return the `rid`s known to be held for that day; None when the day must be read from the bucket."""
        members = frozenset(await self._server.call("SMEMBERS", self._key("held", source, day.isoformat())))
        return members - {_REMEMBERED} if members else None

    async def remember_held(self, source: str, day: date, rids: Iterable[str]) -> None:
        """Remember a day as read from the bucket, for a day."""
        key = self._key("held", source, day.isoformat())
        await self._server.run(lua.REMEMBER_HELD, [key], _HELD_MS, _REMEMBERED, *rids)

    async def add_held(self, source: str, day: date, rids: Iterable[str]) -> None:
        """Add some to a remembered day; does nothing where the day is not remembered."""
        await self._server.run(lua.ADD_HELD, [self._key("held", source, day.isoformat())], *rids)

    async def attempts(self, source: str) -> dict[str, Attempt]:
        """Return all recordings of the source that are being retried, by `rid`."""
        texts = await self._server.call("HGETALL", self._key("attempts", source))
        found = {rid: attempt_from_text(text) for rid, text in texts.items()}
        return {rid: attempt for rid, attempt in found.items() if attempt}

    async def attempt(self, source: str, rid: str) -> Attempt | None:
        """Return one of them."""
        return attempt_from_text(await self._server.call("HGET", self._key("attempts", source), rid))

    async def save_attempt(self, source: str, rid: str, attempt: Attempt) -> None:
        """Remember one of them; all of the source's are kept for 30 days after the last was saved."""
        key = self._key("attempts", source)
        await self._server.run(lua.SAVE_ATTEMPT, [key], rid, attempt_text(attempt), _ATTEMPTS_MS)

    async def forget_attempt(self, source: str, rid: str) -> None:
        """Forget one of them."""
        await self._server.call("HDEL", self._key("attempts", source), rid)

    async def stash(self, name: str, body: str, ttl: float) -> None:
        """Keep a text for `ttl` seconds."""
        await self._server.call("SET", self._key("stash", name), body, "PX", _millis(ttl))

    async def unstash(self, name: str) -> str | None:
        """Return a kept text; None when it is gone."""
        body: str | None = await self._server.call("GET", self._key("stash", name))
        return body

    async def drop(self, name: str) -> None:
        """Forget a kept text."""
        await self._server.call("DEL", self._key("stash", name))

    async def occupy(self, name: str, owner: str, ttl: float) -> bool:
        """Keep the owner as the text of that name, unless another's is kept."""
        return bool(await self._server.run(lua.OCCUPY, [self._key("stash", name)], owner, _millis(ttl)))

    async def enqueue(self, source: str, rids: Iterable[str], ttl: float) -> list[str]:
        """Mark recordings as on their way for at most `ttl` seconds; return those that were not already."""
        asked = list(rids)
        if not asked:
            return []
        fresh: list[str] = await self._server.run(lua.ENQUEUE, [self._key("queued", source)], _millis(ttl), *asked)
        return fresh

    async def dequeue(self, source: str, rids: Iterable[str]) -> None:
        """Take the marks back."""
        asked = list(rids)
        if asked:
            await self._server.call("ZREM", self._key("queued", source), *asked)

    async def enqueued(self, source: str) -> int:
        """Return how many recordings of the source are on their way."""
        return int(await self._server.run(lua.ENQUEUED, [self._key("queued", source)]))

    async def note(self, name: str, fields: dict[str, str]) -> None:
        """Replace a small record for people."""
        pairs = [text for field in fields.items() for text in field]
        await self._server.run(lua.NOTE, [self._key("note", name)], *pairs)

    async def noted(self, name: str) -> dict[str, str]:
        """Return such a record; empty when there is none."""
        return dict(await self._server.call("HGETALL", self._key("note", name)))

    async def ping(self) -> None:
        """Raise StateUnavailable when the server cannot be reached."""
        await self._server.call("PING")

    async def check_server(self) -> list[str]:
        """Return warnings about the server, as sentences.

        StateUnfit when its settings lose work, StateRefused when it cannot be written.
        """
        address = self._server.address
        try:
            verdict = judge(await self._server.call("INFO"))
        except StateRefused as error:
            if not isinstance(error.__cause__, NoPermissionError):
                raise
            return [f"{error}; {_UNCHECKED}"]
        except ResponseError as error:  # INFO was renamed, or a proxy does not know it
            return [f"the state server {address} does not answer INFO ({str(error).rstrip(' .:')[:200]}); {_UNCHECKED}"]
        if problems := verdict.unfit + verdict.passing:
            kind = StateUnfit if verdict.unfit else StateRefused
            raise kind("; ".join(f"the state server {address} {problem}" for problem in problems))
        return [f"the state server {address} {remark}" for remark in verdict.remarks]

    async def aclose(self) -> None:
        """Close connections."""
        await self._server.aclose()


def _millis(seconds: float) -> int:
    return max(1, round(seconds * 1000))  # Redis refuses an expiry of 0
