"""Is the installation well, seen from outside: does the broker answer, do workers consume, can the bucket be written.

For `callvault health` and health checks of containers; each question has its own time limit, so the answer
always comes. What a canary is says `tasks.liveness`; the phone systems are the business of `callvault check`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

from config.clock import Clock
from config.settings import Settings
from storage.errors import StoreError
from storage.keys import Keys
from storage.state import State, StateUnavailable
from storage.store import ArchiveStore
from tasks.broker import BrokerError, broker_url, tls, transport_options
from tasks.liveness import FRESH, last_song

_PATIENCE = 15.0  # seconds for each question
_EXCERPT = 200  # characters of the library's own words


@dataclass(frozen=True, slots=True)
class Check:
    """The answer to one question, in words for people."""

    name: str
    ok: bool
    detail: str


async def health(settings: Settings, state: State, store: ArchiveStore, clock: Clock) -> list[Check]:
    """Return the three answers. The settings are those of `tasks.broker.with_broker`."""
    return list(
        await asyncio.gather(
            _ask("broker", lambda: _broker(settings)),
            _ask("canary", lambda: _canary(state, clock)),
            _ask("bucket", lambda: _bucket(settings, store)),
        )
    )


async def _ask(name: str, question: Callable[[], Awaitable[Check]]) -> Check:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await question()
    except TimeoutError:
        return Check(name, ok=False, detail=f"no answer within {_PATIENCE:.0f} s")
    except (BrokerError, StateUnavailable, StoreError) as error:
        return Check(name, ok=False, detail=str(error))


async def _broker(settings: Settings) -> Check:
    url = broker_url(settings)
    connection = Connection(
        url,
        ssl=tls(url) or False,
        transport_options=transport_options(url, settings.archive.namespace),
        connect_timeout=5,
    )
    shown = f"{connection.transport_cls}://{connection.hostname}:{connection.port}"
    try:
        remark = await asyncio.to_thread(_connect, connection)
    except OperationalError as error:
        words = str(error)[:_EXCERPT].rstrip(".")
        return Check("broker", ok=False, detail=f"{shown} does not answer ({words}): see that it runs")
    return Check("broker", ok=True, detail=f"{shown} answers{remark}")


def _connect(connection: Connection) -> str:
    """Connect, and return what there is to say about the broker's own settings."""
    with connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=int(_PATIENCE / 2))
        if connection.transport_cls not in ("redis", "rediss"):
            return ""
        channel: Any = connection.default_channel  # Redis's own kind, whose client the stubs do not know
        try:
            policy = channel.client.info("memory").get("maxmemory_policy", "noeviction")
        except ResponseError:  # its user may not ask
            return ""
    if policy == "noeviction":
        return ""
    return f"; its maxmemory-policy is {policy}, by which queued work may vanish: set noeviction"


async def _canary(state: State, clock: Clock) -> Check:
    song = await last_song(state)
    if song is None:
        return Check(
            "canary", ok=False, detail="no worker was seen at work yet: see that `up`, or worker and beat, run"
        )
    age = clock.now() - song
    if age > FRESH:
        seconds = int(age.total_seconds())
        return Check("canary", ok=False, detail=f"no worker was at work for {seconds} s: see that worker and beat run")
    return Check("canary", ok=True, detail=f"a worker was at work {max(0, int(age.total_seconds()))} s ago")


async def _bucket(settings: Settings, store: ArchiveStore) -> Check:
    await store.try_write(Keys(settings.archive.prefix).probe(""))
    return Check("bucket", ok=True, detail=f"{settings.archive.bucket} can be written")
