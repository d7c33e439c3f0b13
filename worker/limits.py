"""The gate in front of one source: its cap, its pace, its pauses, and whether it still makes progress.

Every request passes here once and holds a slot until its body is read. Inside one process a semaphore
queues fairly; over all processes the permits of `storage.state` count. A slot's permit is renewed in the
background for as long as it is held.

The cap is strict: a process that cannot renew, because it is cut off from the state or the state is down, ends its
own requests before their permits lapse and others get the places; the time is taken from before the last renewal
that succeeded was sent. What was read so far is thrown away and tried again. One thing cannot be had: a process, or a
machine, that is stopped (SIGSTOP, a suspended virtual machine) for longer than a permit lives ends nothing while it
is stopped. Its requests stay open beside those of others until it goes on; then they end at once, and no new one is
made in their place.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import timedelta

from config.clock import Clock
from config.events import Event
from config.logs import get_logger
from config.settings import Source
from storage.state import PERMIT_LIFE, Permits, StateUnavailable
from worker.errors import WaitUntil

log = get_logger()

PATIENCE = 60.0
"""Seconds without any progress after which a source is given up for this pass."""

LOST = "lost the right to have a request open, because the state did not answer in time; it was ended"
"""What is said of such a request, after which one it was."""

_RENEW_EVERY = PERMIT_LIFE / 8  # a second; each renewal is sent whether the one before was answered or not
_LOST_AFTER = PERMIT_LIFE * 5 / 8  # without a renewal: looked at every second, so two are left for the end to arrive
_LOOK_AGAIN = 0.05  # seconds for which nobody here asks again whether another process was asked for a pause
_ASK_AGAIN = (0.02, 0.2)  # seconds between two looks for a free permit
_PASSED_ON = 3.0  # seconds for which a permit goes from hand to hand here, before other processes have their chance
_SPARED = 0.05  # seconds for which it waits for the next hand


class Slot:
    """The right to have one request open at the source, for as long as the state knows of it."""

    def __init__(self, gate: "Gate", token: str, asked: float) -> None:
        self._gate = gate
        self._token: str | None = token
        self._since = self._good_from = asked
        self.made = _now()
        self.taken_away = False
        self._end: Callable[[], None] | None = None

    @property
    def lost(self) -> bool:
        """Whether the permit may be another's by now: nothing more may be asked in this slot."""
        return self.taken_away or _now() - self._good_from > _LOST_AFTER

    @property
    def old(self) -> bool:
        """Whether this process has had the permit for so long that others should have their chance."""
        return _now() - self._since > _PASSED_ON

    def passed_on(self, token: str) -> "Slot":
        """Return a slot for the next request here, by the same permit."""
        slot = Slot(self._gate, token, self._good_from)
        slot._since = self._since
        return slot

    def renewed(self, asked: float) -> None:
        """Note that the permit was renewed by what was sent at that time."""
        self._good_from = max(self._good_from, asked)

    def take_away(self) -> None:
        """End the request that is open, now and for good."""
        self.taken_away = True
        if self._end is not None:
            self._end()

    def ends_by(self, end: Callable[[], None]) -> None:
        """Say how the request that is open now can be ended at once; until the next one, or the end of the slot."""
        self._end = end

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Wait for an answer in this block. TimeoutError when the slot is lost, before it or meanwhile."""
        if self.lost:
            raise TimeoutError
        async with asyncio.timeout(None) as limit:
            self._end = lambda: limit.reschedule(0.0)
            try:
                yield
            finally:
                self._end = None

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
        self._waiting = 0
        self._steps_back = 0
        self._slots: dict[str, Slot] = {}
        self._at_work = 0
        self._kept: dict[str, Slot] = {}
        self._tidying: asyncio.TimerHandle | None = None
        self._excused = 0
        self._free_until = 0.0
        self._leaving: set[asyncio.Task[None]] = set()
        self._upkeep: asyncio.Task[None] | None = None
        self._progress_at = self._empty_since = clock.monotonic()

    async def enter(self) -> Slot:
        """Wait for a free slot. WaitUntil when the source asked for a longer pause than a pass has patience for."""
        try:
            token, slot = await self._turn()
        except BaseException:
            self._give_back_kept()
            raise
        if not self._slots:  # nothing was open: that time is not the source's silence, the time before it is
            now = self._clock.monotonic()
            self._progress_at = min(now, self._progress_at + now - self._empty_since)
        self._slots[token] = slot
        if self._upkeep is None:
            self._upkeep = asyncio.create_task(self._keep_up())
        return slot

    async def leave(self, token: str) -> None:
        """Give a slot back, even when the caller is being cancelled; or rather, keep it for the next request from here.

        Asking for a permit and giving it back are two requests to the state, which most recordings are spared so.
        """
        slot = self._slots.pop(token)
        if not self._slots and self._upkeep is not None:
            self._empty_since = self._clock.monotonic()
            self._upkeep.cancel()
            self._upkeep = None
        wanted = self._waiting > len(self._kept)
        if (wanted or self._at_work) and not slot.old and not slot.lost:
            self._kept[token] = slot.passed_on(token)
            self._here.release()
            self._tidy_later()
            return
        if wanted:
            self._steps_back += 1
        await asyncio.shield(self._giving_back(token, self._here.release))

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Expect many requests, one soon after the other, in this block; at its end nothing is kept."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._give_back_kept()
                await asyncio.shield(asyncio.gather(*self._leaving))

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
        self._free_until = 0.0
        log.warning(Event.SOURCE_PAUSED, source=self._source.name, seconds=round(seconds, 1), detail=reason)
        await self._permits.pause(self._source.name, self._clock.now() + timedelta(seconds=seconds), reason)

    def progress(self) -> None:
        """Note that the source answered or sent something."""
        self._progress_at = self._clock.monotonic()

    def idle_seconds(self) -> float:
        """Return for how long requests were open, one after the other, without any progress; 0 when none is open."""
        return self._clock.monotonic() - self._progress_at if self._slots and not self._excused else 0.0

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
        while _now() >= self._free_until:
            pause = await self._permits.paused(self._source.name)
            if pause is None:
                self._free_until = _now() + _LOOK_AGAIN
                break
            seconds = (pause.until - self._clock.now()).total_seconds()
            if seconds <= 0:  # over since it was looked up
                break
            if seconds > PATIENCE:
                raise WaitUntil(pause.reason, seconds)
            await self._clock.sleep(seconds)
            self.progress()
            waited = True
        return waited

    def _tidy_later(self) -> None:
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(_SPARED, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        self._give_back_kept(_SPARED)
        if self._kept:
            self._tidy_later()

    def _give_back_kept(self, spared: float = 0.0) -> None:
        """Give back what nobody here has taken for so many seconds."""
        now = _now()
        for token in [token for token, slot in self._kept.items() if now - slot.made >= spared]:
            del self._kept[token]
            self._giving_back(token)

    def _giving_back(self, token: str, then: Callable[[], None] | None = None) -> asyncio.Task[None]:
        giving_back = asyncio.create_task(self._give_back(token, then))
        self._leaving.add(giving_back)  # the loop itself would let an unfinished task be collected
        giving_back.add_done_callback(self._leaving.discard)
        return giving_back

    async def _give_back(self, token: str, then: Callable[[], None] | None) -> None:
        try:
            with contextlib.suppress(StateUnavailable):  # it lapses by itself, and the request was good
                await self._permits.release(self._source.name, token)
        finally:
            if then:
                then()  # only now: who waits here would find the permit still taken

    async def _turn(self) -> tuple[str, Slot]:
        self._waiting += 1
        try:
            await self._here.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._permit()
        except BaseException:
            self._here.release()
            raise

    async def _permit(self) -> tuple[str, Slot]:
        if self._steps_back:
            self._steps_back -= 1
            await self._ask_later()
        while True:
            await self.sit_out_pause()  # each time: the source may have asked for it while we waited
            if self._kept:
                token, slot = self._kept.popitem()
            else:
                asked = _now()
                got = await self._permits.acquire(self._source.name, self._source.max_connections)
                if got is None:
                    await self._ask_later()
                    continue
                token, slot = got, Slot(self, got, asked)
            if not slot.lost:
                return token, slot
            await self._permits.release(self._source.name, token)  # the answer, or the end of a pause, came too late
            await self._ask_later()

    async def _ask_later(self) -> None:
        self._free_until = 0.0
        await self._clock.sleep(random.uniform(*_ASK_AGAIN))  # noqa: S311 - jitter, not a secret

    async def _keep_up(self) -> None:
        renewals: set[asyncio.Task[None]] = set()  # whatever becomes of one, the others and the looking go on
        try:
            while True:
                await asyncio.sleep(_RENEW_EVERY)
                late = [slot for slot in self._slots.values() if slot.lost]
                self._take_away(late, f"no renewal succeeded for {_LOST_AFTER:.0f} s")
                renewal = asyncio.create_task(self._renew())
                renewals.add(renewal)
                renewal.add_done_callback(renewals.discard)
        finally:
            for renewal in renewals:
                renewal.cancel()

    async def _renew(self) -> None:
        asked, slots = _now(), {token: slot for token, slot in self._slots.items() if not slot.lost}
        if not slots:  # given back, or lost
            return
        try:
            async with asyncio.timeout(_LOST_AFTER):  # an answer that comes later is worth nothing
                lapsed = await self._permits.renew(self._source.name, tuple(slots))
        except (StateUnavailable, TimeoutError):
            return  # another is sent in a second
        for token in slots.keys() - lapsed:
            slots[token].renewed(asked)
        # given back meanwhile: then it is no loss
        self._take_away([self._slots[token] for token in lapsed & self._slots.keys()], "the permit had lapsed")

    def _take_away(self, slots: Iterable[Slot], reason: str) -> None:
        fresh = [slot for slot in slots if not slot.taken_away]
        for slot in fresh:
            slot.take_away()
        if fresh:
            log.warning(Event.PERMIT_LOST, source=self._source.name, requests=len(fresh), detail=reason)


def _now() -> float:
    """Return the time that permits are measured in: real seconds, whatever a test's clock says."""
    return asyncio.get_running_loop().time()
