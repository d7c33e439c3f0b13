"""`callvault backfill`: have the workers archive a past span, oldest first, and look on."""

import asyncio
import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from config.clock import SystemClock
from config.load import VARIABLE
from config.settings import Settings, Source
from storage.state import State, StateUnavailable
from storage.state_redis import RedisState
from tasks import broker
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async, usage
from tasks.cli.run import chosen, span
from tasks.send import send_backfill
from worker.model import Window
from worker.polling import backfill_note

_LOOK_EVERY = 1.0


def backfill(
    source: Annotated[str, typer.Option("--source", help="The source to catch up.")],
    from_: Annotated[str, typer.Option("--from", help="Start of the span of call start times, ISO 8601.")],
    to: Annotated[str, typer.Option("--to", help="End of the span, exclusive.")],
    config: Config = None,
    detach: Annotated[bool, typer.Option("--detach", help="Only ask for it; do not wait.")] = False,
    json: Json = False,
    log_level: LogLevel = Level.WARNING,
) -> None:
    """Enqueue a past span, oldest first, and show progress; interrupting the display does not stop the work."""
    settings, path = read_settings(config, log_level)
    one = chosen(settings, [source])[0]
    window = span(from_, to)
    os.environ[VARIABLE] = str(path.absolute())  # where the Celery application looks
    try:
        told = broker.with_broker(settings)
        done = run_async(_backfill(told, one, window, wait=not detach, quiet=json))
    except (broker.BrokerError, StateUnavailable) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(Exit.UNUSABLE) from error
    if json:
        print_json({"source": one.name, "from": from_, "to": to, "done": done})
    elif not done:
        typer.echo(f"asked for; `callvault worker` or `up` carries it out, `callvault status` shows {one.name}")


async def _backfill(settings: Settings, source: Source, window: Window, *, wait: bool, quiet: bool) -> bool:
    state = RedisState(broker.state_url(settings), settings.archive.namespace, SystemClock())
    try:
        start, end = window.start.isoformat(), window.end.isoformat()
        under_way = await state.noted(backfill_note(source))
        if under_way and not under_way["done"] and (under_way["from"], under_way["to"]) != (start, end):
            raise usage(
                f"a backfill of {source.name} from {under_way['from']} to {under_way['to']} is not done yet, it is at "
                f"{under_way['at']}: wait for it, or ask for the same span to look on"
            )
        await state.note(backfill_note(source), {"from": start, "at": start, "to": end, "done": ""})
        await asyncio.to_thread(send_backfill, source.name, start, end)
        if wait:
            await _look_on(state, source, window, quiet=quiet)
        return wait
    finally:
        await state.aclose()


async def _look_on(state: State, source: Source, window: Window, *, quiet: bool) -> None:
    """Show how far the backfill is until it is done: what started before that is held or a gap."""
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(source.name, total=(window.end - window.start).total_seconds())
        shown = ""
        while True:
            told = await state.noted(backfill_note(source))
            if not told:
                raise StateUnavailable("the broker has forgotten the backfill (was it emptied?): ask for it again")
            at = datetime.fromisoformat(told["at"])
            bar.update(task, completed=(at - window.start).total_seconds())
            if not console.is_terminal and at.isoformat() != shown:
                shown = at.isoformat()
                console.print(f"{source.name}: everything before {at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z is settled")
            if told["done"]:
                return
            await asyncio.sleep(_LOOK_EVERY)
