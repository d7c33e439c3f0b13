"""`callvault run`: one archive pass in this process, for cron and nightly batches. Needs no broker."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import typer

from config.clock import SystemClock
from config.events import Event
from config.logs import get_logger
from config.settings import Settings, Source
from storage.errors import StoreError, StoreRefused
from storage.s3.store import S3Store
from storage.state import State, StateUnavailable
from storage.state_local import LocalState
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async, usage
from tasks.cli.progress import watching
from worker.checking import refuse_unlockable
from worker.housekeeping import clean_up
from worker.model import Window
from worker.outcome import Report
from worker.passes import Watcher, run_source
from worker.runtime import make_services

R = TypeVar("R", bound=Report)

log = get_logger()

_FIRST_YEAR, _LAST_YEAR = 1971, 2100  # a day's room on both sides for zones and widened windows
_LOCK_SECONDS = 60.0  # the lease is a file lock: it goes with the process, this number plays no part


def run(
    config: Config = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="Only this source; may be repeated.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Start of a span of call start times, ISO 8601.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="End of the span, exclusive.")] = None,
    json: Json = False,
    log_level: LogLevel = Level.INFO,
) -> None:
    """Archive what is due, or exactly the calls that started in a span, and exit."""
    bars = on_terminal() and not json
    settings, _ = read_settings(config, Level.WARNING if bars and log_level is Level.INFO else log_level)
    sources = chosen(settings, source)
    window = window_of_options(from_, to)
    with watching(shown=bars) as watcher:
        reports, trouble = run_async(_run(settings, sources, window, watcher))
    code = exit_code(reports, trouble)
    if json:
        print_json(document(reports, trouble))
    else:
        _show(reports, trouble)
    raise typer.Exit(code)


def on_terminal() -> bool:
    """Tell whether somebody may be looking at standard error."""
    return sys.stderr.isatty()


def chosen(settings: Settings, names: list[str] | None) -> list[Source]:
    """Return the sources named, or all; exit with 2 for an unknown one."""
    unknown = set(names or []) - {s.name for s in settings.sources}
    if unknown:
        known = ", ".join(s.name for s in settings.sources)
        raise usage(f"--source {', '.join(sorted(unknown))}: no such source; the configuration has {known}")
    return [s for s in settings.sources if not names or s.name in names]


def window_of_options(from_: str | None, to: str | None) -> Window | None:
    """Return the span asked for, in UTC; None where none was. Exit with 2 where it makes no sense."""
    if from_ is None and to is None:
        return None
    if from_ is None or to is None:
        raise usage("--from and --to go together: the span is from inclusive, to exclusive")
    return span(from_, to)


def span(from_: str, to: str) -> Window:
    """Return the span between two times, in UTC. Exit with 2 where it makes no sense."""
    start, end = moment("--from", from_), moment("--to", to)
    if start >= end:
        raise usage(f"--from {from_} is not before --to {to}")
    return Window(start, end)


def moment(option: str, text: str) -> datetime:
    """Read a time with an offset, or a date, which means its midnight in UTC. Exit with 2 for anything else."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise usage(
            f"{option} {text}: write a time such as 2026-03-01T00:00:00Z or a date such as 2026-03-01"
        ) from error
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise usage(f"{option} {text}: write a time between {_FIRST_YEAR} and {_LAST_YEAR}")
    if value.tzinfo is None:
        if len(text) > len("2026-03-01"):
            raise usage(f"{option} {text}: the time has no offset; end it in Z for UTC or in one such as +01:00")
        value = value.replace(tzinfo=UTC)
    return value.astimezone(UTC)


async def _run(
    settings: Settings, sources: list[Source], window: Window | None, watcher: Watcher | None
) -> tuple[dict[str, Report], str]:
    clock = SystemClock()
    state = LocalState(settings.runtime.state_dir, settings.archive.namespace, clock)
    store = S3Store(settings.archive, clock)
    async with make_services(settings, clock, store, state, len(sources)) as services:
        try:
            await refuse_unlockable(settings, store)
        except StoreError as error:
            return {}, error.message
        try:
            await clean_up(services)
        except StoreRefused as error:  # the right to list uploads may be missing; archiving does without
            log.warning(Event.STORE_FAILED, detail=error.message)
        except StoreError as error:
            return {}, error.message
        passes = (
            alone(state, source, Report(), partial(run_source, services, source, window, watcher)) for source in sources
        )
        reports = await asyncio.gather(*passes)
    return dict(zip((s.name for s in sources), reports, strict=True)), ""


async def alone(state: State, source: Source, report: R, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Do work on a source unless a process of this machine is at it; the report given says so where one is."""
    try:
        lease = await state.lease(f"run-{source.name}", _LOCK_SECONDS)
    except StateUnavailable as error:
        report.errors, report.unusable = [str(error)], True
        return report
    if lease is None:
        report.errors = [f"another run of {source.name} is under way on this machine; this one left it alone"]
        return report
    try:
        return await work()
    finally:
        await lease.release()


def exit_code(reports: dict[str, Report], trouble: str) -> Exit:
    """Return how the run ended."""
    if trouble or any(r.unusable or r.store_failed for r in reports.values()):
        return Exit.UNUSABLE
    if any(r.gaps or r.to_retry or r.errors for r in reports.values()):
        return Exit.INCOMPLETE
    return Exit.WELL


def document(reports: dict[str, Report], trouble: str) -> dict[str, Any]:
    """Return what `--json` prints: each source's figures, and their sums."""
    sources = {name: report.public() for name, report in reports.items()}
    sums = ("listed", "archived", "held", "pending", "gaps", "gaps_on_record", "bytes")
    totals = {name: sum(figures[name] for figures in sources.values()) for name in sums}
    errors = ([trouble] if trouble else []) + [e for figures in sources.values() for e in figures["errors"]]
    return {"sources": sources, **totals, "errors": errors}


def _show(reports: dict[str, Report], trouble: str) -> None:
    if trouble:
        typer.echo(trouble, err=True)
    for name, report in reports.items():
        on_record = f" ({report.gaps_on_record} on record)" if report.gaps_on_record else ""
        typer.echo(
            f"{name}: {report.listed} listed, {report.archived} archived, {report.held} held before, "
            f"{report.pending} pending, {report.gaps} gaps{on_record}"
        )
        for error in report.errors:
            typer.echo(f"  {error}", err=True)
