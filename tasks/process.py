"""What one process of Celery keeps from task to task: its settings, its event loop, its open connections.

All of it is made at first use, so importing this does nothing and every pool process has its own. The loop
itself is `tasks.loop`; what is opened on it is `worker.runtime`.
"""

import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from config.clock import SystemClock
from config.events import Event
from config.load import find_config, load
from config.logs import get_logger
from config.settings import Settings, Source
from storage.errors import StoreError
from storage.s3.store import S3Store
from storage.state import StateUnavailable
from storage.state_redis import RedisState
from tasks.broker import state_url, with_broker
from tasks.liveness import singing
from tasks.loop import Loop, Unfinished
from tasks.roster import Place, enrol
from tasks.stopping import FLAG
from worker.handover import RECORDING_SECONDS
from worker.runtime import Services, make_services
from worker.vendors import vendor_keys

T = TypeVar("T")

EXPECTED = (Unfinished, StateUnavailable, StoreError)
"""Ways for a task to fail that are nobody's mistake: said in one line, without a traceback."""

log = get_logger()
_loop = Loop(FLAG)
_settings: Settings | None = None
_services: Services | None = None
_place: Place | None = None  # taken by the worker's main process; those forked from it go by its name


def settings() -> Settings:
    """Return what this process was told, the broker's address included; the file is read once.

    ConfigError when there is no configuration or it is wrong, BrokerError when there is no broker to use.
    """
    global _settings  # noqa: PLW0603 - one per process is the point
    if _settings is None:
        _settings = with_broker(load(find_config(None, os.environ), vendor_keys(), os.environ))
    return _settings


def take_place(node: str) -> str | None:
    """Enter this worker on the machine's roster and return its id; None, after a line in the log, where it cannot."""
    global _place  # noqa: PLW0603 - one per process is the point
    try:
        _place = enrol(settings(), node, SystemClock().now())
    except OSError as error:
        log.error(Event.WORKER_UNWATCHED, detail=f"{error.filename}: {error.strerror}")
        return None
    return _place.worker.id


def worker_id() -> str | None:
    """Return the id of the worker that this process belongs to; None where it belongs to none."""
    return _place.worker.id if _place else None


def configured(name: object) -> Source | None:
    """Return the source of that name; None, and a line in the log, where there is none.

    Messages are input: one may come from a worker with another configuration, or from anybody who can write
    to the broker.
    """
    for source in settings().sources:
        if source.name == name:
            return source
    dropped(name, "no such source is configured here")
    return None


def dropped(source: object, reason: str) -> None:
    """Note that a message was not acted on."""
    log.warning(Event.TASK_DROPPED, source=str(source)[:40], detail=reason)


def perform(work: Callable[[Services], Awaitable[T]]) -> T:
    """Run the work on this process's loop with its services, and return what it returns.

    What it raises is raised, after a line in the log for the `EXPECTED`. Unfinished when it was cut short by its
    deadline or because the worker is stopping.
    """

    async def with_services() -> T:
        services = _open()
        async with singing(services.state, services.clock, worker_id()):
            return await work(services)

    try:
        return _loop.run(with_services)
    except EXPECTED as error:
        log.warning(Event.TASK_UNFINISHED, error=type(error).__name__, detail=str(error))
        failure = error
    raise _without_history(failure)


def _without_history(error: Exception) -> Exception:
    """Return an error without the traces of what led to it.

    Celery sends them, as text, to the worker's main process: through a pipe of 64 KiB that nobody empties any more once
    that process is ending. What does not fit would have the two wait for each other for ever.
    """
    error.__cause__, error.__suppress_context__ = None, True
    return error.with_traceback(None)


def close() -> None:
    """Cancel what still runs, close connections and loop: this process is ending. May be called twice."""
    _loop.close(_close_services)


def _open() -> Services:
    global _services  # noqa: PLW0603 - one per process is the point
    if _services is None:
        told, clock = settings(), SystemClock()
        store = S3Store(told.archive, clock)
        _services = make_services(
            told,
            clock,
            store,
            RedisState(state_url(told), told.archive.namespace, clock),
            recording_seconds=RECORDING_SECONDS,
        )
    return _services


async def _close_services() -> None:
    global _services
    services, _services = _services, None
    if services is not None:
        await services.aclose()
