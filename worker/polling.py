"""The scheduled pass, first half: `poll` finds what is due and cuts it into batches for other tasks.

What is handed over lies in the disposable state under a name; messages carry names only. The batches of one
poll form a chain: a few are under way at a time and each sends the next when it ends (`worker.handover`).
A source with a living chain is not polled again before the chain ends, so a backlog never piles up in the
queue; the last batch asks for the next poll.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum

from config.events import Event
from config.logs import get_logger
from config.settings import Source
from storage.errors import StoreError
from storage.state import Lease, StateUnavailable
from worker.batch import patiently
from worker.catchup import CatchUp, leave
from worker.chain import Chain
from worker.discovery import LIMIT, Found, discover
from worker.errors import SourceError
from worker.model import Window
from worker.outcome import Report
from worker.passes import note_bug, note_trouble, settle_oddities
from worker.runtime import Desk, Services
from worker.span import current_window
from worker.steps import Step, reached

POLL_LEASE = 15.0
"""Seconds after which a poll whose process died no longer keeps others from polling the source."""

Send = Callable[[str, str], None]
"""Sends an archive task: source name, batch name."""
Backfill = Callable[[str, str, str], None]
"""Sends a backfill task: source name, and the span's ends in ISO 8601."""

log = get_logger()


class Polled(StrEnum):
    """How a poll ended."""

    DONE = "done"
    UNDER_WAY = "under way"  # another poll or an unfinished chain of this source
    TROUBLE = "trouble"


async def poll(services: Services, source: Source, send: Send, backfill: Backfill) -> Polled:
    """List what is due and send the first batches of its chain: `send(source name, batch name)`.

    Ends at once when the source is being polled or has a living chain. Trouble with the source or the
    bucket is logged and noted for `status`, not raised: the next poll is the retry. A backfill that was
    asked for and is neither done nor under way is taken up again: `backfill(source name, from, to)`.
    """

    async def work(desk: Desk, report: Report, lease: Lease) -> None:
        window = await current_window(services, source)
        found = await _look(services, desk, window, report, until=None)
        await services.state.set_watermark(source.name, found.watermark, lease.fence)
        report.watermark = found.watermark
        again: dict[str, str] | None = {} if found.resume_at else None
        await _hand_over(services, Chain.new(source.name, "poll", services.settings.lanes), found, send, again)
        if found.trouble:
            raise found.trouble

    ended, report = await _alone(services, source, "poll", work)
    if ended is not Polled.UNDER_WAY:
        await _note(services, source, report)
        asked = await services.state.noted(backfill_note(source))
        due = asked and not asked.get("done") and {"at", "to"} <= set(asked)
        if due and not await Chain.alive(services.state, source.name, "backfill"):
            backfill(source.name, asked["at"], asked["to"])
    return ended


async def backfill(services: Services, source: Source, window: Window, send: Send) -> Polled:
    """List a past span and send the first batches of its chain, like `poll`, leaving the watermark alone.

    Progress is noted under `backfill_note`: everything of the span that started before `at` is settled.
    """

    async def work(desk: Desk, report: Report, _: Lease) -> None:
        found = await _look(services, desk, window, report, until=window.end)
        note = backfill_note(source)
        asked = await services.state.noted(note)
        if asked and asked.get("to") != window.end.isoformat():
            return  # another span has been asked for since
        done = not found.to_archive and found.watermark == window.end
        await services.state.note(
            note,
            {
                "from": asked.get("from", window.start.isoformat()),
                "at": found.watermark.isoformat(),
                "to": window.end.isoformat(),
                "done": "yes" if done else "",
            },
        )
        again = {"from": found.watermark.isoformat(), "to": window.end.isoformat()}
        await _hand_over(services, Chain.new(source.name, "backfill", services.settings.lanes), found, send, again)
        if found.trouble:
            raise found.trouble

    ended, _ = await _alone(services, source, "backfill", work)
    return ended


def backfill_note(source: Source) -> str:
    """Return the name under which the state keeps a source's backfill: from, at, to, done."""
    return f"backfill:{source.name}"


async def _alone(
    services: Services, source: Source, kind: str, work: Callable[[Desk, Report, Lease], Awaitable[None]]
) -> tuple[Polled, Report]:
    """Do the work unless somebody is at it; turn trouble into the report."""
    report = Report()
    lease = await services.state.lease(f"{kind}:{source.name}", POLL_LEASE)
    if lease is None:
        log.info(Event.POLL_SKIPPED, source=source.name)
        return Polled.UNDER_WAY, report
    try:
        if await Chain.alive(services.state, source.name, kind):
            log.info(Event.POLL_SKIPPED, source=source.name)
            return Polled.UNDER_WAY, report
        log.info(Event.POLL_STARTED, source=source.name)
        desk = services.desk(source)
        await patiently(desk.gate, source.name, work(desk, report, lease), lease.renew)
    except SourceError as error:
        note_trouble(report, source, error)
        return Polled.TROUBLE, report
    except StoreError as error:
        report.errors.append(error.message)
        log.error(Event.STORE_FAILED, source=source.name, detail=error.message)
        return Polled.TROUBLE, report
    except StateUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - noted for `status`, where a task that died would leave nothing
        note_bug(report, source, error)
        return Polled.TROUBLE, report
    finally:
        await asyncio.shield(lease.release())
    return Polled.DONE, report


async def _look(services: Services, desk: Desk, window: Window, report: Report, *, until: datetime | None) -> Found:
    """Look at the window; while a backlog is caught up, at the part of it where the last look's work began."""
    state, source, now = services.state, desk.source, services.clock.now()
    left = await CatchUp.of(state, source, until)
    part = left.goes_on(window, now) if left else None
    window = part or (left.all_the_way(window, source) if left else window)
    found = await discover(services, desk, window, report, LIMIT, left.first if left else None)
    reached(Step.LISTED)
    await settle_oddities(services, desk, found, report)
    await leave(state, source, found, window, now, left, on=part is not None, until=until)
    if left and part:
        found.watermark = min(found.watermark, left.unsettled)
    return found


async def _hand_over(services: Services, chain: Chain, found: Found, send: Send, again: dict[str, str] | None) -> None:
    watermark = found.watermark if chain.kind == "poll" else None
    batches = await chain.begin(services.state, found.to_archive, watermark, again)
    reached(Step.LAID_DOWN)
    for batch in batches:
        send(chain.source, batch)
    reached(Step.SENT)


async def _note(services: Services, source: Source, report: Report) -> None:
    """Leave the figures for `status`."""
    now = services.clock.now()
    log.info(Event.POLL_FINISHED, source=source.name, **report.public())
    await services.state.note(
        f"poll:{source.name}",
        {
            "at": now.isoformat(),
            "listed": str(report.listed),
            "held": str(report.held),
            "pending": str(report.pending),
            "gaps_on_record": str(report.gaps_on_record),
            "watermark": report.watermark.isoformat() if report.watermark else "",
            "error": "; ".join(report.errors)[:500],
        },
    )
