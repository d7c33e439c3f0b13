"""A clock that tests turn by hand: sleeping moves it, nothing waits."""

import asyncio
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Implements `config.clock.Clock`; `slept` lists what was asked for, in seconds."""

    def __init__(self, now: datetime = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)) -> None:
        self._now = now
        self._steady = 1000.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._steady

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._steady += seconds
