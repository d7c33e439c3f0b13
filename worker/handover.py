"""The scheduled pass, second half: `archive_batch` archives what a poll laid down, and keeps the chain going.

May run twice, and may be killed at any instruction: what it settled is in the bucket, and the rest is found
by the next poll. A recording during whose transfer a worker died is tried alone from then on, so that it
takes no others with it, and is given up after a few deaths.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from config.events import Event
from config.logs import get_logger
from config.settings import Source
from storage.errors import StoreError
from storage.keys import rid, utc_date
from storage.state import Attempt, Lease, State
from worker.batch import archive_many, patiently
from worker.chain import KEPT, Batch, Chain
from worker.errors import SourceError
from worker.index import Index
from worker.model import Recording
from worker.outcome import Report
from worker.passes import note_trouble
from worker.pipeline import MAX_CRASHES
from worker.runtime import Desk, Services
from worker.steps import Step, reached

BATCH_SECONDS = 600.0
"""After this time a batch begins no further recording; what is left is the next poll's."""
RECORDING_SECONDS = 900.0
"""How long one recording may take: the largest by default, 2 GiB, needs 19 Mbit/s. Longer is a failure, to be
tried again less and less often. Together with `BATCH_SECONDS` this stays below the deadline of a task."""
BATCH_LEASE = 15.0
"""Seconds after which the batch of a dead process may be taken over."""
_TAKEOVER_LOOKS = 40  # half a second apart: longer than the lease, so a redelivered message outwaits the dead

log = get_logger()


async def archive_batch(
    services: Services,
    source: Source,
    batch: str,
    send: Callable[[str, str], None],
    again: Callable[[str, dict[str, str]], None],
) -> Report | None:
    """Archive a batch; then `send(source name, next batch)`, or `again(source name, words)` for another look.

    None where there was nothing to do: contents gone, a newer chain under way, another process at it.
    Trouble with source or bucket ends the chain and is logged; the next poll is the retry.
    """
    state, chain = services.state, Chain.of(source.name, batch, services.settings.lanes)
    lease = await _take_over(services, batch)
    if lease is None:
        return None
    try:
        work = await chain.load(state, batch)
        if work is None:
            return None
        if not await chain.live(state):  # another is at work: with one lane cut off, this would pass for alive
            await chain.abandon(state, work.of)
            return None
        if await _died_before_any(state, batch):
            detail = f"workers died {MAX_CRASHES} times with a batch before its first recording; is memory short?"
            log.error(Event.SOURCE_STOPPED, source=source.name, error="WorkersDie", detail=detail)
            await chain.abandon(state, work.of)
            return None
        reached(Step.TAKEN)
        report = Report()
        if await _archived(services, source, chain, batch, work, report, lease):
            reached(Step.BATCH_DONE)
            over = await chain.finish(state, batch)
            if not over:
                await chain.wait(state)
            if work.following and await chain.current(state):
                send(source.name, work.following)
                reached(Step.FOLLOWED)
            elif over and work.again is not None and report.archived + report.held:
                again(source.name, work.again)  # gaps alone may come back each time: they wait for the clock
        else:
            await chain.abandon(state, work.of)
        log.info(Event.BATCH_FINISHED, source=source.name, batch=batch, **report.public())
        return report
    except asyncio.CancelledError:  # the worker is stopping: let another begin at once
        await asyncio.shield(chain.end(state))
        raise
    finally:
        await asyncio.shield(lease.release())


async def _take_over(services: Services, batch: str) -> Lease | None:
    for _ in range(_TAKEOVER_LOOKS):
        lease = await services.state.lease(f"batch:{batch}", BATCH_LEASE)
        if lease is not None:
            return lease
        await services.clock.sleep(0.5)
    return None


async def _died_before_any(state: State, batch: str) -> bool:
    """Count a beginning, until `_work` forgets it, and tell whether there were too many: a message that kills whoever
    takes it comes again at once, and would for ever.
    """
    name = f"begun:{batch}"
    begun = int(await state.unstash(name) or 0)
    await state.stash(name, str(begun + 1), KEPT)
    return begun >= MAX_CRASHES


async def _archived(
    services: Services, source: Source, chain: Chain, batch: str, work: Batch, report: Report, lease: Lease
) -> bool:
    """Archive what is not held yet; False when the chain should not go on."""

    async def sign_of_life() -> None:
        await lease.renew()
        await chain.live(services.state)

    desk = services.desk(source)
    watch = _InFlight(services.state, f"inflight:{source.name}:{chain.kind}:{chain.lane(batch)}")
    closing = asyncio.Event()
    closes = asyncio.get_running_loop().call_later(BATCH_SECONDS, closing.set)
    try:
        await sign_of_life()
        work_on = _work(services, desk, batch, work, report, watch, closing)
        await patiently(desk.gate, source.name, work_on, sign_of_life)
    except SourceError as error:
        note_trouble(report, source, error)
        return False
    except StoreError as error:
        report.errors.append(error.message)
        log.error(Event.STORE_FAILED, source=source.name, detail=error.message)
        return False
    finally:
        closes.cancel()
        await asyncio.shield(watch.clear())
    return True


async def _work(
    services: Services, desk: Desk, batch: str, work: Batch, report: Report, watch: "_InFlight", closing: asyncio.Event
) -> None:
    index = Index(services, desk.source)
    due = [r for r in work.recordings if not await index.held(rid(r.id), utc_date(r.started_at))]
    died_with = await watch.of_the_dead()
    tried = await services.state.attempts(desk.source.name)
    suspects = [r for r in due if await _suspect(services, desk, r, tried.get(rid(r.id)), died_with)]
    await services.state.drop(f"begun:{batch}")  # from here on, deaths are blamed on recordings
    names = {r.id for r in suspects}
    rest = [r for r in due if r.id not in names]
    archive = partial(archive_many, services, desk, report=report, watermark=work.watermark, closing=closing)
    await archive(rest, starting=watch.begins, ended=watch.ended)
    for suspect in suspects:
        await watch.alone(suspect)
        await archive([suspect])


async def _suspect(
    services: Services, desk: Desk, recording: Recording, known: Attempt | None, died_with: frozenset[str]
) -> bool:
    """Tell whether a worker died while this recording was under way, now or earlier, and count the death."""
    name = rid(recording.id)
    if name not in died_with:
        return known is not None and known.crashes > 0
    now = services.clock.now()
    known = known or Attempt(now, 0, now, "the worker died while archiving it")
    await services.state.save_attempt(desk.source.name, name, replace(known, crashes=known.crashes + 1))
    return True


class _InFlight:
    """Which recordings a lane is working on, written down before each begins, so that a death can be blamed."""

    def __init__(self, state: State, name: str) -> None:
        self._state = state
        self._name = name
        self._rids: dict[str, int] = {}
        """Each with the number of the first note that has it."""
        self._begun = self._written = 0
        self._writing = asyncio.Lock()

    async def of_the_dead(self) -> frozenset[str]:
        return frozenset(await self._state.noted(self._name))

    async def begins(self, coming: Sequence[Recording]) -> None:
        """Return once the first of them is written down. The others, which come next, are so with it: one that had not
        begun when the worker died is tried alone once for nothing, and nearly all begin without a request.
        """
        name = rid(coming[0].id)
        if name not in self._rids:
            self._begun += 1
            for recording in coming:
                self._rids.setdefault(rid(recording.id), self._begun)
        number = self._rids[name]
        if self._written >= number:
            return
        async with self._writing:  # of those who wait here, whoever comes in first writes for all
            if self._written >= number:
                return
            number = self._begun
            await self._state.note(self._name, dict.fromkeys(self._rids, "1"))
            self._written = number

    def ended(self, recording: Recording) -> None:
        self._rids.pop(rid(recording.id), None)

    async def alone(self, recording: Recording) -> None:
        self._rids.clear()
        await self.begins([recording])

    async def clear(self) -> None:
        await self._state.note(self._name, {})
