"""Is the installation well, seen from this machine: does the broker answer, is there work and is it done, do the
workers of this very machine take part in it, can the bucket be written.

For `callvault health` and the health checks of containers and systemd; each question has its own time limit, so the
answer always comes. What is a sign of life says `tasks.liveness`; the phone systems are the business of `callvault
check`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from kombu.exceptions import OperationalError

from config.clock import Clock
from config.settings import Settings
from storage.errors import StoreError
from storage.keys import Keys
from storage.state import State, StateUnavailable
from storage.store import ArchiveStore
from tasks.broker import BrokerError
from tasks.calling import Heard, call
from tasks.fitness import ask_servers
from tasks.liveness import FRESH, last_song
from tasks.roster import Worker, at_work

_PATIENCE = 13.0  # seconds for each question; they are asked at once, and starting Python takes one
_NO_ANSWER = f"no answer within {_PATIENCE:.0f} s"
_EXCERPT = 200  # characters of the library's own words


@dataclass(frozen=True, slots=True)
class Check:
    """The answer to one question, in words for people."""

    name: str
    ok: bool
    detail: str


async def health(settings: Settings, state: State, store: ArchiveStore, clock: Clock) -> list[Check]:
    """Return the four answers. The settings are those of `tasks.broker.with_broker`."""
    return list(
        await asyncio.gather(
            _ask("broker", lambda: _broker(settings)),
            _ask("canary", lambda: _canary(state, clock)),
            worker_health(settings, state, clock),
            _ask("bucket", lambda: _bucket(settings, store)),
        )
    )


async def worker_health(settings: Settings, state: State, clock: Clock) -> Check:
    """Return the answer that starting the workers of this machine anew could change, and it alone."""
    try:
        workers = at_work(settings)
    except OSError as error:
        words = f"cannot read {error.filename} ({error.strerror}): run this as the user that the worker runs as"
        return Check("worker", ok=False, detail=words)
    if not workers:
        return Check("worker", ok=True, detail="none runs on this machine")
    try:
        async with asyncio.timeout(_PATIENCE):
            heard = await call(settings, state, clock, workers)
    except (OperationalError, StateUnavailable, TimeoutError) as error:
        # not held against them: whoever starts silent workers anew would only make it worse
        names, why = ", ".join(worker.node for worker in workers), _words(error) or _NO_ANSWER
        return Check("worker", ok=True, detail=f"{names} runs; whether it works cannot be told now ({why})")
    verdicts = [_verdict(worker, found, clock.now()) for worker, found in zip(workers, heard, strict=True)]
    return Check("worker", ok=all(ok for ok, _ in verdicts), detail="; ".join(words for _, words in verdicts))


async def _ask(name: str, question: Callable[[], Awaitable[Check]]) -> Check:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await question()
    except TimeoutError:
        return Check(name, ok=False, detail=_NO_ANSWER)
    except (BrokerError, StateUnavailable, StoreError) as error:
        return Check(name, ok=False, detail=str(error))


async def _broker(settings: Settings) -> Check:
    warnings = await ask_servers(settings)
    return Check("broker", ok=True, detail="; ".join(["answers", *warnings]))


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


def _verdict(worker: Worker, heard: Heard, now: datetime) -> tuple[bool, str]:
    answer = heard.answer
    if answer and answer.deaf:
        return False, f"{worker.node} runs and takes nothing from {', '.join(answer.deaf)}: start it anew"
    if heard.prompt:
        return True, f"{worker.node} answered at once"
    last, what = max([(worker.since, "started"), *([(answer.at, "was at work")] if answer else [])])
    seconds = max(0, int((now - last).total_seconds()))
    if now - last > FRESH:
        return False, f"{worker.node} runs and has taken no message for {seconds} s: start it anew"
    return True, f"{worker.node} {what} {seconds} s ago"


def _words(error: Exception) -> str:
    return str(error)[:_EXCERPT].rstrip(".")


async def _bucket(settings: Settings, store: ArchiveStore) -> Check:
    await store.try_write(Keys(settings.archive.prefix).probe(""))
    return Check("bucket", ok=True, detail=f"{settings.archive.bucket} can be written")
