"""The verbs that stay: `up`, `worker`, `beat`; and `health`, which looks whether they do their work."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from config.clock import SystemClock
from config.load import VARIABLE
from config.settings import Settings
from storage.s3.store import S3Store
from storage.state_redis import RedisState
from tasks import broker, fitness, launch
from tasks.app import LOG_LEVEL
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async
from tasks.embedded import EmbeddedError
from tasks.health import Check, worker_health
from tasks.health import health as ask_health
from tasks.up import run_up


def up(config: Config = None, log_level: LogLevel = Level.INFO) -> None:
    """Run worker and scheduler together, with an embedded broker when none is configured, until told to stop."""
    settings, path = _settings(config, log_level)
    _serve(lambda: _up(settings, path))


def worker(config: Config = None, log_level: LogLevel = Level.INFO) -> None:
    """Run a worker; any number may run, on any number of machines."""
    settings, _ = _settings(config, log_level)
    _serve(lambda: _launch("worker", settings))


def beat(config: Config = None, log_level: LogLevel = Level.INFO) -> None:
    """Run a scheduler; any number may run, polls are single-flight."""
    settings, _ = _settings(config, log_level)
    _serve(lambda: _launch("beat", settings))


def health(
    config: Config = None,
    worker: Annotated[bool, typer.Option("--worker", help="Ask only whether this machine's workers work.")] = False,
    json: Json = False,
    log_level: LogLevel = Level.ERROR,
) -> None:
    """Exit with 0 when the broker answers, workers consume, here too, and the bucket can be written."""
    settings, _ = read_settings(config, log_level)
    try:
        told = broker.with_broker(settings)
        checks = run_async(_worker_health(told) if worker else _health(told))
    except broker.BrokerError as error:
        checks = [Check("worker" if worker else "broker", ok=worker, detail=str(error))]
    well = all(check.ok for check in checks)
    if json:
        print_json({"ok": well, "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks]})
    else:
        for check in checks:
            typer.echo(f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.detail}")
    raise typer.Exit(Exit.WELL if well else Exit.UNUSABLE)


async def _health(settings: Settings) -> list[Check]:
    clock = SystemClock()
    state = RedisState(broker.state_url(settings), settings.archive.namespace, clock)
    store = S3Store(settings.archive, clock)
    try:
        return await ask_health(settings, state, store, clock)
    finally:
        await store.aclose()
        await state.aclose()


async def _worker_health(settings: Settings) -> list[Check]:
    clock = SystemClock()
    state = RedisState(broker.state_url(settings), settings.archive.namespace, clock)
    try:
        return [await worker_health(settings, state, clock)]
    finally:
        await state.aclose()


def _settings(config: Path | None, level: Level) -> tuple[Settings, Path]:
    """Read the configuration; file and level are left in the environment, where processes started from here look."""
    settings, path = read_settings(config, level)
    os.environ |= {VARIABLE: str(path.absolute()), LOG_LEVEL: level.value}
    return settings, path


def _up(settings: Settings, path: Path) -> int:
    if settings.broker:
        fitness.end_if_unfit(broker.with_broker(settings))  # its children would only be started again and again
    fitness.end_if_unlockable(settings)
    return run_up(settings, path)


def _launch(role: str, settings: Settings) -> int:
    broker.with_broker(settings)  # said here, in one sentence, rather than from inside Celery
    return launch.run(role)


def _serve(work: Callable[[], int]) -> None:
    try:
        code = work()
    except (broker.BrokerError, EmbeddedError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(Exit.UNUSABLE) from error
    raise typer.Exit(code)
