"""Permits of one process, in memory: what `storage.state.Permits` promises, by a clock that tests turn."""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from config.clock import Clock
from storage.state import Pause

_LIFE = 60.0  # longer than the real one: where a test's clock jumps, no renewal could have come in time


class MemoryPermits:
    """Implements `storage.state.Permits`; `in_use` tells how many are out, `most` how many ever were at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens: dict[str, dict[str, float]] = defaultdict(dict)
        self._next: dict[str, float] = {}
        self._pauses: dict[str, Pause] = {}
        self._numbers = itertools.count(1)
        self.most = 0

    def in_use(self, source: str) -> int:
        return len(self._tokens[source])

    async def acquire(self, source: str, limit: int) -> str | None:
        now = self._clock.monotonic()
        tokens = self._tokens[source]
        for token in [t for t, until in tokens.items() if until <= now]:
            del tokens[token]
        if len(tokens) >= limit:
            return None
        token = str(next(self._numbers))
        tokens[token] = now + _LIFE
        self.most = max(self.most, len(tokens))
        return token

    async def renew(self, source: str, tokens: Iterable[str]) -> frozenset[str]:
        known, asked = self._tokens[source], frozenset(tokens)
        for token in asked & known.keys():
            known[token] = self._clock.monotonic() + _LIFE
        return asked - known.keys()

    def forget(self, source: str) -> None:
        """Have all permits lapse, as for a process that was stopped for too long."""
        self._tokens[source].clear()

    async def release(self, source: str, token: str) -> None:
        self._tokens[source].pop(token, None)

    async def reserve(self, source: str, per_second: float) -> float:
        now = self._clock.monotonic()
        place = max(self._next.get(source, now), now)
        self._next[source] = place + 1 / per_second
        return place - now

    async def pause(self, source: str, until: datetime, reason: str) -> None:
        kept = self._pauses.get(source)
        if kept is None or kept.until < until:
            self._pauses[source] = Pause(until, reason)

    async def paused(self, source: str) -> Pause | None:
        pause = self._pauses.get(source)
        return pause if pause and pause.until > self._clock.now() else None

    async def unpause(self, source: str) -> None:
        self._pauses.pop(source, None)
