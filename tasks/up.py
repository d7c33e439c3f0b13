"""`callvault up`: a worker and a scheduler together, with the embedded broker where none is configured.

How children are kept running is `tasks.supervisor`, the broker `tasks.embedded`, what the children run
`tasks.launch`. The scheduler polls every source once when it starts.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path

from kombu.exceptions import OperationalError

from config.clock import Clock, SystemClock
from config.events import Event
from config.logs import get_logger
from config.settings import Settings
from storage.state import StateUnavailable
from storage.state_redis import RedisState
from tasks import launch
from tasks.broker import state_url, with_broker
from tasks.calling import call
from tasks.embedded import EmbeddedError, EmbeddedValkey
from tasks.liveness import last_song
from tasks.roster import at_work
from tasks.supervisor import Child, Supervisor, noted_signals

SILENT = timedelta(minutes=5)
"""Time without a canary after which worker and scheduler are started anew."""
_LISTEN_EVERY = 30.0  # seconds between two looks at the canary
_RESTART_PATIENCE = 5.0  # seconds for the embedded broker to come back; a stop must not wait for longer

log = get_logger()


class _Stopped(Exception):
    """A signal came while the embedded broker was starting."""


def run_up(settings: Settings, config_path: Path) -> int:
    """Run everything until SIGTERM or SIGINT, then stop it within half a minute and return 0.

    BrokerError where the configured broker cannot serve, EmbeddedError where the embedded one cannot run.
    """
    with noted_signals() as signals, ExitStack() as stack:

        def pause(seconds: float) -> None:
            if signals:
                raise _Stopped
            time.sleep(seconds)

        chores: list[Callable[[float], None]] = []
        if settings.broker is None:
            try:
                valkey = stack.enter_context(EmbeddedValkey(settings.runtime.state_dir, pause=pause))
            except _Stopped:
                return 0
            chores.append(BrokerKeeper(valkey))
            if valkey.fresh:
                asyncio.run(_nobody_in_flight(with_broker(settings)))
        told = with_broker(settings)
        environ = launch.environment(config_path, os.environ)
        children = [Child(role, launch.command(role), environ) for role in ("worker", "beat")]
        worker = children[0]
        chores.append(CanaryWatch(children, lambda: asyncio.run(last_sign(told, worker.pid)), SystemClock()))
        Supervisor(children, signals, chores).run()
    return 0


class BrokerKeeper:
    """Starts the embedded broker again when it died; workers reconnect to the same address by themselves."""

    def __init__(self, valkey: EmbeddedValkey) -> None:
        self._valkey = valkey

    def __call__(self, _: float) -> None:
        """Look once."""
        if not self._valkey.alive():
            log.error(Event.CHILD_DIED, child="broker")
            try:
                self._valkey.start(_RESTART_PATIENCE)
            except (EmbeddedError, OSError, _Stopped) as error:  # looked at again in a moment, unless we are stopping
                log.error(Event.BROKER_UNREACHABLE, detail=str(error))


class CanaryWatch:
    """Restarts the children when no canary was taken, or none by their own worker, for `SILENT`, although the state and
    the broker can be reached.
    """

    def __init__(self, children: Sequence[Child], listen: Callable[[], datetime | None], clock: Clock) -> None:
        self._children = children
        self._listen = listen
        self._clock = clock
        self._heard = clock.now()
        self._next = 0.0

    def __call__(self, now: float) -> None:
        """Look, at most twice a minute."""
        if now < self._next:
            return
        self._next = now + _LISTEN_EVERY
        try:
            song = self._listen()
        except StateUnavailable:  # then the worker cannot help being silent
            self._heard = self._clock.now()
            return
        self._heard = max(self._heard, song or self._heard)
        if self._clock.now() - self._heard > SILENT:
            log.error(Event.WORKER_SILENT, since=self._heard.isoformat())
            for child in self._children:
                child.restart(now)
            self._heard = self._clock.now()


async def _nobody_in_flight(settings: Settings) -> None:
    """Spare the very first start the wait for requests of workers that the broker does not know of."""
    state = RedisState(state_url(settings), settings.archive.namespace, SystemClock())
    try:
        with suppress(StateUnavailable):  # gone again: then the wait is a few seconds long
            await state.nobody_in_flight()
    finally:
        await state.aclose()


async def last_sign(settings: Settings, pid: int | None) -> datetime | None:
    """Return the older of two: when the canary last sang, and when the worker of that process last answered a call.

    Calls it again, for the next look. StateUnavailable when broker or state are away.
    """
    clock = SystemClock()
    state = RedisState(state_url(settings), settings.archive.namespace, clock)
    try:
        song = await last_song(state)
        ours = []
        with suppress(OSError):  # the roster cannot be read: then the canary alone is listened to
            ours = [worker for worker in at_work(settings) if worker.pid == pid]
        heard = await call(settings, state, clock, ours, patience=0)
    except OperationalError as error:
        raise StateUnavailable(f"the broker takes no calls ({error})") from error
    finally:
        await state.aclose()
    signs = [song, *(found.answer.at if found.answer and not found.answer.deaf else None for found in heard)]
    return min(known) if len(known := [at for at in signs if at]) == len(signs) else None
