"""`callvault retry`: try gaps of a source again, in this process; the only way for one whose record is unchanged."""

from functools import partial
from typing import Annotated

import typer

from config.clock import SystemClock
from config.settings import Settings, Source
from storage.s3.store import S3Store
from storage.state import State, StateUnavailable
from storage.state_local import LocalState
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async, usage
from tasks.cli.progress import watching
from tasks.cli.run import alone, chosen, exit_code, on_terminal
from tasks.cli.status import shared_state
from worker.passes import Watcher
from worker.retry import Retried, retry_gaps
from worker.runtime import make_services


def retry(
    source: Annotated[str, typer.Option("--source", help="The source whose gaps are meant.")],
    gap: Annotated[
        str | None, typer.Option("--gap", help="This one: the recording's id, as in its gap record.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All gaps of the source.")] = False,
    config: Config = None,
    json: Json = False,
    log_level: LogLevel = Level.INFO,
) -> None:
    """Try gaps again: what succeeds now is archived, what fails is on record with the latest reason."""
    if (gap is None) is not every:
        raise usage("either --gap ID, for one recording, or --all: exactly one of the two is needed")
    bars = on_terminal() and not json
    settings, _ = read_settings(config, Level.WARNING if bars and log_level is Level.INFO else log_level)
    one = chosen(settings, [source])[0]
    with watching(shown=bars) as watcher:
        report = run_async(_retry(settings, one, gap, watcher))
    if gap is not None and not (report.on_record or report.held or report.errors):
        raise usage(
            f"--gap {gap}: {one.name} has no gap record of this recording; the records below "
            f"v1/gaps/source={one.name}/ name theirs in `recording_id`"
        )
    if json:
        print_json({"source": one.name, **report.public()})
    else:
        _show(one, report)
    code = exit_code({one.name: report}, "")
    raise typer.Exit(Exit.INCOMPLETE if code is Exit.WELL and report.not_tried else code)


async def _retry(settings: Settings, source: Source, gap: str | None, watcher: Watcher | None) -> Retried:
    clock = SystemClock()
    lock = LocalState(settings.runtime.state_dir, settings.archive.namespace, clock)
    state = await _state(settings, lock)
    async with make_services(settings, clock, S3Store(settings.archive, clock), state) as services:
        return await alone(lock, source, Retried(), partial(retry_gaps, services, source, gap, watcher))


async def _state(settings: Settings, local: LocalState) -> State:
    """Return the state that the workers share, so that caps count their requests too; else this machine's own."""
    state = shared_state(settings, SystemClock())
    try:
        await state.ping()
    except StateUnavailable:  # no worker works without it either
        await state.aclose()
        return local
    return state


def _show(source: Source, report: Retried) -> None:
    held = f", {report.held} held before" if report.held else ""
    left = f", {report.not_tried} not tried" if report.not_tried else ""
    typer.echo(
        f"{source.name}: {report.on_record} gaps, {report.archived} archived now{held}, {report.gaps} still gaps{left}"
    )
    for told in report.still:
        typer.echo(f"  {told['recording_id']}: {told['reason']}: {told['detail']}", err=True)
    for error in report.errors:
        typer.echo(f"  {error}", err=True)
