"""Can the configured servers carry messages and state: asked at start, by `callvault check` and by `callvault health`.

What a Redis must be like is `storage.state_fitness`. One that evicts keys, or is a cluster, is refused at start: it
loses work in silence. One that cannot be reached is waited for, so a worker asks once it has reached its broker.
A bucket that can lock nothing, although the policy wants locks, is refused in the same way.
"""

import asyncio
import sys

from kombu.exceptions import OperationalError

from config.clock import SystemClock
from config.events import Event
from config.logs import get_logger
from config.settings import Settings
from storage.errors import NoObjectLock, StoreError
from storage.s3.store import S3Store
from storage.state import StateUnavailable, StateUnfit
from storage.state_redis import RedisState
from tasks.broker import BrokerError, brief_connection, broker_url, redis_urls
from worker.checking import refuse_unlockable

EXIT_CODE = 2
"""How a process ends that refuses its servers: somebody has to change a configuration."""

_PATIENCE = 7  # seconds for RabbitMQ to answer
_EXCERPT = 200  # characters of the library's own words

log = get_logger()


async def ask_servers(settings: Settings) -> list[str]:
    """Ask every server there is; return warnings. The settings are those of `tasks.broker.with_broker`.

    BrokerError or StateUnavailable when one cannot serve, StateUnfit when that is because of its settings.
    """
    urls, warnings = redis_urls(settings), []
    for url in urls:
        state = RedisState(url, settings.archive.namespace, SystemClock())
        try:
            warnings += await state.check_server()
        finally:
            await state.aclose()
    if broker_url(settings) not in urls:
        await asyncio.to_thread(_connect, settings)
    return warnings


def _connect(settings: Settings) -> None:
    with brief_connection(settings) as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_PATIENCE)
        except OperationalError as error:
            words = str(error)[:_EXCERPT].rstrip(".")
            shown = f"{connection.transport_cls}://{connection.hostname}:{connection.port}"
            raise BrokerError(f"{shown} does not answer ({words}): see that it runs") from error


def refuse_unfit(settings: Settings) -> None:
    """Raise StateUnfit when a server's settings lose work; log what else is to be said, and go on."""
    try:
        warnings = asyncio.run(ask_servers(settings))
    except StateUnfit:
        raise
    except (BrokerError, StateUnavailable) as error:
        log.warning(Event.BROKER_UNREACHABLE, detail=str(error))
    else:
        for warning in warnings:
            log.warning(Event.BROKER_DOUBTFUL, detail=warning)


def end_if_unfit(settings: Settings) -> None:
    """End this process, with the sentence, when a server's settings lose work."""
    try:
        refuse_unfit(settings)
    except StateUnfit as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_CODE) from error


def end_if_unlockable(settings: Settings) -> None:
    """End this process, with the sentence, when the policy wants locks and the bucket can hold none.

    One that cannot be asked is waited for, as for any write. Without a mode the bucket is not asked.
    """
    try:
        asyncio.run(_ask_bucket(settings))
    except NoObjectLock as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_CODE) from error
    except StoreError as error:
        log.warning(Event.STORE_FAILED, detail=error.message)


async def _ask_bucket(settings: Settings) -> None:
    store = S3Store(settings.archive, SystemClock())
    try:
        await refuse_unlockable(settings, store)
    finally:
        await store.aclose()
