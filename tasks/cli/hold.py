"""`callvault hold`: legal holds as matters, placed and released; who goes through the archive is `hold_carry`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from config.clock import SystemClock
from config.settings import Settings
from storage.errors import StoreError
from storage.holds import Hold, Scope, Step
from storage.s3.store import S3Store
from storage.sidecar import utc_text
from storage.state import StateUnavailable
from storage.state_local import LocalState
from storage.swept import Swept
from tasks import broker
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async, usage, who
from tasks.cli.hold_carry import How, carry
from tasks.cli.hold_scope import Agent, From, Number, Queue, Recording, Source, To, doubts, scope_of
from worker import placing, sweep
from worker.runtime import Services, make_services

T = TypeVar("T")

hold = typer.Typer(
    name="hold",
    help="Legal holds: what a dispute needs is kept, whatever else is due.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="What the matter is called, such as smith-v-acme-2026.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for whoever asks in ten years.")]
Here = Annotated[bool, typer.Option("--here", help="Go through the archive in this process, not in the workers.")]
Detach = Annotated[bool, typer.Option("--detach", help="Leave going through the archive to the workers; do not wait.")]

_UNDONE = (StoreError, StateUnavailable, broker.BrokerError)


@dataclass
class _Told:
    """What there is to say in the end."""

    hold: Hold
    swept: Swept | None = None
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@hold.command()
def add(
    name: Name,
    reason: Reason,
    recording: Recording = None,
    source: Source = None,
    from_: From = None,
    to: To = None,
    number: Number = None,
    agent: Agent = None,
    queue: Queue = None,
    here: Here = False,
    detach: Detach = False,
    config: Config = None,
    json: Json = False,
    log_level: LogLevel = Level.WARNING,
) -> None:
    """Place a hold: what is in its scope, now or later, can be deleted by nobody until it is released."""
    scope, step = scope_of(recording, source, from_, to, number, agent, queue), _step(reason)
    how = _how(config, log_level, here=here, detach=detach, json=json)

    async def place(services: Services) -> Hold:
        return await placing.place(services, name, scope, step)

    _end(_act(how, place, name), json=json)


@hold.command()
def release(
    name: Name,
    reason: Reason,
    here: Here = False,
    detach: Detach = False,
    config: Config = None,
    json: Json = False,
    log_level: LogLevel = Level.WARNING,
) -> None:
    """Release a hold: what no other hold covers is free again."""
    step = _step(reason)
    how = _how(config, log_level, here=here, detach=detach, json=json)

    async def let_go(services: Services) -> Hold:
        return await placing.release(services, name, step)

    _end(_act(how, let_go, name), json=json)


@hold.command("apply")
def apply_(
    name: Name,
    here: Here = False,
    detach: Detach = False,
    config: Config = None,
    json: Json = False,
    log_level: LogLevel = Level.WARNING,
) -> None:
    """Go through the archive for a hold once more, or on from where that was interrupted."""
    how = _how(config, log_level, here=here, detach=detach, json=json)

    async def as_it_is(services: Services) -> Hold:
        return await placing.find(services, name)

    _end(_act(how, as_it_is, name), json=json)


@hold.command("list")
def list_(config: Config = None, json: Json = False, log_level: LogLevel = Level.WARNING) -> None:
    """Show all holds, those in force and those released."""
    settings, _ = read_settings(config, log_level)

    async def all_(services: Services) -> list[Hold]:
        return await services.matters.all()

    holds = _run(settings, all_, json=json)
    if json:
        print_json({"holds": [_public(one) for one in holds]})
        return
    for one in holds:
        typer.echo(f"{one.name}: {_state(one)}; {_words(one.scope)}")
    if not holds:
        typer.echo("no hold was ever placed")


@hold.command()
def show(name: Name, config: Config = None, json: Json = False, log_level: LogLevel = Level.WARNING) -> None:
    """Show a hold: its scope, who placed and released it, and how far the archive has been gone through for it."""
    settings, _ = read_settings(config, log_level)

    async def look(services: Services) -> _Told:
        return _Told(await placing.find(services, name), await sweep.swept(services, name))

    told = _run(settings, look, json=json)
    if json:
        print_json(_document(told))
        return
    one = told.hold
    typer.echo(f"{one.name}: {_state(one)}")
    typer.echo(f"  scope: {_words(one.scope)}")
    for act, step in (("placed", one.placed), ("released", one.released)):
        if step:
            typer.echo(f"  {act} {utc_text(step.at)} by {step.by}: {step.reason}")
    _show_swept(told)


def _step(reason: str) -> Step:
    if not reason.strip():
        raise usage("--reason is empty: write why, for whoever asks in ten years")
    return Step(at=SystemClock().now(), by=who(), reason=reason.strip())


def _how(config: Path | None, level: Level, *, here: bool, detach: bool, json: bool) -> How:
    if here and detach:
        raise usage("--here does the work in this process, --detach leaves it to the workers: write one of the two")
    settings, path = read_settings(config, level)
    return How(settings, path, here, detach, quiet=json)


def _act(how: How, act: Callable[[Services], Awaitable[Hold]], name: str) -> _Told:
    async def work(services: Services) -> _Told:
        told = _Told(await act(services))
        try:
            if told.hold.active:
                told.warnings = await doubts(services, told.hold)
            told.swept = await carry(how, services, name)
        except _UNDONE as error:
            force = "in force for what is archived from now on" if told.hold.active else "released"
            told.errors.append(
                f"{name} is {force}, but the archive was not gone through to its end: {error}."
                f" Go on with `callvault hold apply {name}`, with --here where no worker runs"
            )
        return told

    return _run(how.settings, work, json=how.quiet)


def _run(settings: Settings, work: Callable[[Services], Awaitable[T]], *, json: bool) -> T:
    """Do work on the archive; exit with 2 where it makes no sense, with 4 where the bucket cannot be used."""

    async def with_services() -> T:
        clock = SystemClock()
        state = LocalState(settings.runtime.state_dir, settings.archive.namespace, clock)
        async with make_services(settings, clock, S3Store(settings.archive, clock), state) as services:
            return await work(services)

    try:
        return run_async(with_services())
    except placing.Unplaced as error:
        raise usage(str(error)) from error
    except StoreError as error:
        if json:
            print_json({"errors": [error.message]})
        else:
            typer.echo(error.message, err=True)
        raise typer.Exit(Exit.UNUSABLE) from error


def _end(told: _Told, *, json: bool) -> None:
    if json:
        print_json(_document(told))
    else:
        _show(told)
    failed = bool(told.swept and told.swept.failed)
    raise typer.Exit(Exit.UNUSABLE if told.errors else Exit.INCOMPLETE if failed else Exit.WELL)


def _show(told: _Told) -> None:
    for warning in told.warnings:
        typer.echo(f"note: {warning}", err=True)
    for error in told.errors:
        typer.echo(error, err=True)
    if told.hold.active:
        typer.echo(f"{told.hold.name} is in force: what is archived in its scope from now on is held as it is written")
    else:
        typer.echo(f"{told.hold.name} is released")
    if not told.errors:
        _show_swept(told)


def _show_swept(told: _Told) -> None:
    swept = told.swept
    if swept is None or swept.of != sweep.state_of(told.hold):
        typer.echo("  the archive has not been gone through yet; `callvault hold show` tells how far that is")
        return
    if swept.done:
        typer.echo(f"  the archive was gone through by {utc_text(swept.at)}: {_figures(swept)}")
        if not swept.recordings and told.hold.active:
            typer.echo("  nothing in the archive is in its scope yet; what comes is held")
    else:
        typer.echo(
            f"  going through the archive, day {swept.days} of {swept.of_days} at {utc_text(swept.at)}:"
            f" {_figures(swept)}; where nobody is at it any more, `callvault hold apply {swept.name}` goes on"
        )
    for failure in swept.failures:
        typer.echo(f"  {failure}", err=True)
    if swept.failed > len(swept.failures):
        typer.echo(f"  and {swept.failed - len(swept.failures)} more", err=True)


def _figures(swept: Swept) -> str:
    return (
        f"{swept.recordings} recordings in scope; of their versions {swept.held} held, {swept.freed} freed,"
        f" {swept.right} as they should be, {swept.failed} failed"
    )


def _state(one: Hold) -> str:
    if one.released:
        return f"released {utc_text(one.released.at)}"
    return f"in force since {utc_text(one.placed.at)}"


def _words(scope: Scope) -> str:
    if scope.recordings:
        shown = ", ".join(scope.recordings[:5])
        return shown + (f" and {len(scope.recordings) - 5} more" if len(scope.recordings) > 5 else "")
    told = scope.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"recordings"})
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _document(told: _Told) -> dict[str, Any]:
    swept = told.swept.model_dump(mode="json", exclude={"schema_", "name", "place"}) if told.swept else None
    return {**_public(told.hold), "archive": swept, "warnings": told.warnings, "errors": told.errors}


def _public(one: Hold) -> dict[str, Any]:
    return {"active": one.active, **one.model_dump(mode="json", by_alias=True, exclude={"schema_"})}
