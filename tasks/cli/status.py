"""`callvault status`: how each source stands. Asks the bucket, and the broker's state where one runs."""

from datetime import timedelta

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from config.clock import Clock, SystemClock
from config.settings import Settings
from storage.errors import StoreError
from storage.s3.store import S3Store
from storage.state import State, StateUnavailable
from storage.state_local import LocalState
from storage.state_redis import RedisState
from tasks import broker
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async
from worker.runtime import make_services
from worker.status import Standing, standing


def status(config: Config = None, json: Json = False, log_level: LogLevel = Level.ERROR) -> None:
    """Show watermark, lag, held today, pending, gaps and the last error of each source."""
    settings, _ = read_settings(config, log_level)
    try:
        standings = run_async(_status(settings))
    except (StoreError, StateUnavailable) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(Exit.UNUSABLE) from error
    if json:
        print_json({"sources": {s.source: s.public() for s in standings}})
    else:
        Console().print(_table(standings))


def shared_state(settings: Settings, clock: Clock) -> State:
    """Return the state all workers share, or this machine's own where no broker runs."""
    try:
        told = broker.with_broker(settings)
    except broker.BrokerError:
        return LocalState(settings.runtime.state_dir, settings.archive.namespace, clock)
    return RedisState(broker.state_url(told), settings.archive.namespace, clock)


async def _status(settings: Settings) -> list[Standing]:
    clock = SystemClock()
    store = S3Store(settings.archive, clock)
    async with make_services(settings, clock, store, shared_state(settings, clock)) as services:
        return [await standing(services, source) for source in settings.sources]


def _table(standings: list[Standing]) -> Table:
    table = Table("source", "settled until (UTC)", "lag", "held today", "pending", "gaps", "last error")
    for s in standings:
        until = f"{s.watermark:%Y-%m-%d %H:%M:%S}" if s.watermark else "never archived"
        lag = str(timedelta(seconds=round(s.lag_seconds))) if s.lag_seconds is not None else ""
        table.add_row(s.source, until, lag, str(s.held_today), str(s.pending), str(s.gaps), escape(s.last_error))
    return table
