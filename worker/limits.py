"""The gate in front of one source: its cap, its pace, its pauses, and whether it still makes progress.

Every request passes here once and holds a slot until its body is read. Inside one process a semaphore
queues fairly; over all processes the permits of `storage.state` count. A slot's permit is renewed in the
background for as long as it is held.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterator
from datetime import timedelta

from config.clock import Clock
from config.events import Event
from config.logs import get_logger
from config.settings import Source
from storage.state import Permits, StateUnavailable
from worker.errors import WaitUntil

log = get_logger()

PATIENCE = 60.0
"""Seconds without any progress after which a source is given up for this pass."""

_RENEW_EVERY = 20.0  # permits lapse after 60 s: two renewals may be lost
_ASK_AGAIN = (0.02, 0.2)  # seconds between two looks for a free permit


class Slot:
    """The right to have one request open at the source."""

    def __init__(self, gate: "Gate", token: str) -> None:
        self._gate = gate
        self._token: str | None = token

    async def release(self) -> None:
        """Give it back; may be called twice."""
        token, self._token = self._token, None
        if token is not None:
            await self._gate.leave(token)


class Gate:
    """Cap, pace and pauses of one source, as this process sees them."""

    def __init__(self, source: Source, permits: Permits, clock: Clock, default_rate: float | None = None) -> None:
        self._source = source
        self._permits = permits
        self._clock = clock
        self._rate = source.requests_per_second or default_rate
        self._here = asyncio.Semaphore(source.max_connections)
        self._tokens: set[str] = set()
        self._excused = 0
        self._leaving: set[asyncio.Task[None]] = set()
        self._renewer: asyncio.Task[None] | None = None
        self._progress_at = self._empty_since = clock.monotonic()

    async def enter(self) -> Slot:
        """Wait for a free slot. WaitUntil when the source asked for a longer pause than a pass has patience for."""
        await self._here.acquire()
        try:
            token = await self._permit()
        except BaseException:
            self._here.release()
            raise
        if not self._tokens:  # nothing was open: that time is not the source's silence, the time before it is
            now = self._clock.monotonic()
            self._progress_at = min(now, self._progress_at + now - self._empty_since)
        self._tokens.add(token)
        if self._renewer is None:
            self._renewer = asyncio.create_task(self._renew())
        return Slot(self, token)

    async def leave(self, token: str) -> None:
        """Give a slot back, even when the caller is being cancelled."""
        self._tokens.discard(token)
        if not self._tokens and self._renewer is not None:
            self._empty_since = self._clock.monotonic()
            self._renewer.cancel()
            self._renewer = None
        giving_back = asyncio.create_task(self._give_back(token))
        self._leaving.add(giving_back)  # the loop itself would let an unfinished task be collected
        giving_back.add_done_callback(self._leaving.discard)
        await asyncio.shield(giving_back)

    async def keep_pace(self) -> None:
        """Wait for this request's place in the source's pace, and for the end of a pause asked for meanwhile."""
        while True:
            if self._rate:
                wait = await self._permits.reserve(self._source.name, self._rate)
                if wait > 0:
                    await self._clock.sleep(wait)
                    self.progress()  # our own waiting is not the source's silence
            if not await self.sit_out_pause():
                return  # else book again: who waited must not all go at once

    async def pause(self, seconds: float, reason: str) -> None:
        """Leave the source alone, from all processes, for so many seconds."""
        log.warning(Event.SOURCE_PAUSED, source=self._source.name, seconds=round(seconds, 1), detail=reason)
        await self._permits.pause(self._source.name, self._clock.now() + timedelta(seconds=seconds), reason)

    def progress(self) -> None:
        """Note that the source answered or sent something."""
        self._progress_at = self._clock.monotonic()

    def idle_seconds(self) -> float:
        """Return for how long requests were open, one after the other, without any progress; 0 when none is open."""
        return self._clock.monotonic() - self._progress_at if self._tokens and not self._excused else 0.0

    @contextlib.contextmanager
    def excused(self) -> Iterator[None]:
        """Do not take the time of this block, in which the archive is waited for, for the source's silence."""
        self._excused += 1
        try:
            yield
        finally:
            self._excused -= 1
            self.progress()

    async def sit_out_pause(self) -> bool:
        """Wait until the source may be asked again; WaitUntil as for `enter`. For requests within a held slot.

        Returns whether there was anything to wait for.
        """
        waited = False
        while pause := await self._permits.paused(self._source.name):
            seconds = (pause.until - self._clock.now()).total_seconds()
            if seconds <= 0:  # over since it was looked up
                break
            if seconds > PATIENCE:
                raise WaitUntil(pause.reason, seconds)
            await self._clock.sleep(seconds)
            self.progress()
            waited = True
        return waited

    async def _give_back(self, token: str) -> None:
        try:
            with contextlib.suppress(StateUnavailable):  # it lapses by itself, and the request was good
                await self._permits.release(self._source.name, token)
        finally:
            self._here.release()  # only now: who waits here would find the permit still taken

    async def _permit(self) -> str:
        while True:
            await self.sit_out_pause()  # each time: the source may have asked for it while we waited
            token = await self._permits.acquire(self._source.name, self._source.max_connections)
            if token is not None:
                return token
            await self._clock.sleep(random.uniform(*_ASK_AGAIN))  # noqa: S311 - jitter, not a secret

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_EVERY)
            with contextlib.suppress(StateUnavailable):  # the next round may reach it
                await self._permits.renew(self._source.name, tuple(self._tokens))
