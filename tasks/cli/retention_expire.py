"""`callvault retention expire`: destroy, in this process, what is due, with certificates; or say what would be."""

from typing import Annotated, Any

import typer

from config.clock import SystemClock
from config.settings import Settings
from storage.errors import StoreError
from storage.s3.store import S3Store
from storage.state import State, StateUnavailable
from storage.state_local import LocalState
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async, usage, who
from tasks.cli.status import shared_state
from worker.expiry import Expired, expire
from worker.runtime import make_services
from worker.turns import alone

_SHOWN = 20  # recordings of a dry run that are named on a terminal


def expire_verb(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say what would be.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Destroy so many recordings at most.")] = None,
    config: Config = None,
    json: Json = False,
    log_level: LogLevel = Level.WARNING,
) -> None:
    """Destroy recordings whose time is over and which nothing holds, and certify it."""
    settings, _ = read_settings(config, log_level)
    most = settings.retention.expire_at_most
    _refuse_off(settings, dry_run=dry_run)
    if limit is not None and limit > most:
        raise usage(f"--limit {limit} is above expire_at_most, {most}: it can only lower it; raise that in [retention]")
    try:
        report = run_async(_expire(settings, dry_run=dry_run, limit=limit or most))
    except (StoreError, StateUnavailable) as error:
        report = Expired(dry_run=dry_run, errors=[str(error)])
        _tell(report, json=json)
        raise typer.Exit(Exit.UNUSABLE) from error
    _tell(report, json=json)
    raise typer.Exit(Exit.INCOMPLETE if report.errors or (report.more and not dry_run) else Exit.WELL)


def _refuse_off(settings: Settings, *, dry_run: bool) -> None:
    policy = settings.retention
    if policy.mode is None:
        raise usage(
            "[retention] has no mode, so that no recording is promised an end and none is ever due; write mode ="
            ' "governance" and a default'
        )
    if not (policy.expire or dry_run):
        raise usage(
            "[retention] has expire = false: nothing is deleted; write expire = true to have it done, or add --dry-run"
            " to see what would be"
        )


async def _expire(settings: Settings, *, dry_run: bool, limit: int) -> Expired:
    clock = SystemClock()
    async with make_services(settings, clock, S3Store(settings.archive, clock), await state_of(settings)) as services:
        if dry_run:
            return await expire(services, by=who(), limit=limit, dry_run=True)
        async with alone(services) as holds:
            if holds is None:
                return Expired(errors=["another expiry run is under way; this one left everything alone"])
            return await expire(services, by=who(), limit=limit, go_on=holds)


async def state_of(settings: Settings) -> State:
    """Return the state that the workers share, so that none of them does the same; else this machine's own."""
    state = shared_state(settings, SystemClock())
    try:
        await state.ping()
    except StateUnavailable:  # no worker works without it either
        await state.aclose()
        return LocalState(settings.runtime.state_dir, settings.archive.namespace, SystemClock())
    return state


def _tell(report: Expired, *, json: bool) -> None:
    if json:
        print_json(report.public())
        return
    would = "would be destroyed" if report.dry_run else "destroyed"
    for source, told in sorted(report.sources.items()):
        kept = f", {told.held} held, {told.locked} locked for longer" if told.held or told.locked else ""
        asked = f", {told.erased} of them on request" if told.erased else ""
        typer.echo(f"{source}: {told.destroyed} {would}, {told.bytes} bytes{asked}{kept}")
    if not report.sources and not report.errors:
        typer.echo("nothing is due")
    for item in report.due[:_SHOWN]:
        typer.echo(f"  {_named(item)}")
    if len(report.due) > _SHOWN:
        typer.echo(f"  and {report.destroyed - _SHOWN} more; --json names up to a thousand")
    for key in report.certificates:
        typer.echo(f"certificate: {key}")
    if report.unfinished:
        typer.echo(f"{report.unfinished} certificates were begun and not completed; a run goes on with them first")
    if report.more:
        typer.echo("there is more to do: " + ("the limit is reached" if report.limited else "ask again"))
    for error in report.errors:
        typer.echo(f"  {error}", err=True)


def _named(item: dict[str, Any]) -> str:
    return f"{item['source']}/{item['recording_id']}, kept until {item['kept_until']}"
