"""One archive pass over a source in this process, from listing to sidecars: what `callvault run` does.

The scheduled counterpart, which hands batches to other processes, is `worker.polling`.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from config.events import Event
from config.logs import get_logger
from config.settings import Source
from storage.errors import StoreError
from storage.sidecar import GapReason
from storage.state import StateUnavailable
from worker.batch import archive_many, patiently
from worker.discovery import FAR, LIMIT, Found, discover
from worker.errors import SourceError
from worker.gaps import write_gap, write_unreadable
from worker.model import Recording, Window
from worker.outcome import Outcome, Report
from worker.runtime import Desk, Services
from worker.span import current_window

_TOLD = 10  # rows without an id that are told in words

log = get_logger()


class Watcher(Protocol):
    """Somebody who looks on, such as a progress bar."""

    def planned(self, source: str, count: int) -> None:
        """So many more recordings are about to be archived."""
        ...

    def settled(self, source: str, recording: Recording, outcome: Outcome) -> None:
        """One of them is settled or put off."""
        ...


async def run_source(
    services: Services, source: Source, window: Window | None = None, watcher: Watcher | None = None
) -> Report:
    """Archive what the window holds (by default what is due) and report; trouble is in the report, not raised."""
    report = Report()
    await reported(services, source, report, lambda desk: _pass(services, desk, window, report, watcher))
    return report


async def reported(
    services: Services, source: Source, report: Report, work: Callable[[Desk], Coroutine[Any, Any, None]]
) -> None:
    """Do work on a source, patiently; trouble goes to the report and the log, nothing is raised."""
    try:
        desk = services.desk(source)
        await patiently(desk.gate, source.name, work(desk))
    except SourceError as error:
        note_trouble(report, source, error)
    except (StoreError, StateUnavailable) as error:
        report.store_failed = True
        report.errors.append(str(error))
        log.error(Event.STORE_FAILED, source=source.name, detail=str(error))
    except Exception as error:  # noqa: BLE001 - a bug met by one source must not stop the others; it is reported
        note_bug(report, source, error)


def note_bug(report: Report, source: Source, error: Exception) -> None:
    """Write the unforeseen into a source's report and, with its traceback, into the log."""
    log.error(Event.BUG, source=source.name, exc_info=error)
    report.errors.append(f"{source.name}: unexpected {type(error).__name__}; see the log")
    report.unusable = report.listed == 0


def note_trouble(report: Report, source: Source, error: SourceError) -> None:
    """Write a source's trouble into its report and the log."""
    report.errors.append(error.message)
    report.unusable = report.listed == 0
    log.error(Event.SOURCE_STOPPED, source=source.name, error=type(error).__name__, detail=error.message)


async def settle_oddities(services: Services, desk: Desk, found: Found, report: Report) -> None:
    """Put on record what was listed and cannot be read, and what failed and is listed no more.

    Rows without an id cannot be put on record: they are errors of the report, the first few in words.
    """
    nameless = 0
    for row in found.unreadable:
        log.warning(Event.ROW_UNREADABLE, source=desk.source.name, recording=row.id, detail=row.detail)
        if row.id is None:
            nameless += 1
            if nameless <= _TOLD:
                report.errors.append(f"{desk.source.name} listed a row that cannot be read: {row.detail}")
        else:
            report.listed += 1
            report.count(await write_unreadable(services, desk, row))
    if nameless > _TOLD:
        report.errors.append(f"{desk.source.name} listed {nameless - _TOLD} more rows that cannot be read")
    for recording, attempt in found.vanished:
        detail = f"{attempt.error}; the phone system lists it no more"
        report.count(
            await write_gap(
                services,
                desk,
                recording,
                GapReason.GAVE_UP,
                detail,
                tries=attempt.tries,
                first_try_at=attempt.first_try_at,
            )
        )


async def _pass(services: Services, desk: Desk, asked: Window | None, report: Report, watcher: Watcher | None) -> None:
    name = desk.source.name
    window = asked or await current_window(services, desk.source)
    listener = partial(watcher.settled, name) if watcher else None
    unsettled, trouble, first = FAR, None, None
    while True:
        found = await discover(services, desk, window, report, LIMIT, first)
        await settle_oddities(services, desk, found, report)
        if watcher:
            watcher.planned(name, len(found.to_archive))
        watermark = None if asked else min(found.watermark, unsettled)
        left = await archive_many(services, desk, found.to_archive, report, watermark=watermark, listener=listener)
        unsettled = min(unsettled, found.unsettled, left or FAR)
        trouble = trouble or found.trouble
        if found.resume_at is None:
            break
        window, first = Window(found.resume_at, window.end), found.stretch
    report.watermark = None if asked else min(unsettled, window.end)
    if trouble:
        raise trouble
