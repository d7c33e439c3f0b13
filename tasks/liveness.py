"""Signs of life: proof that workers take messages and work on them, and how old the proof is.

A worker can be connected, answer pings and consume nothing, so only consumption counts. Two things are proved:

- *The canary*: once a minute a scheduler sends one to the queue that all workers share, and whoever takes it notes
  the time. While it is fresh, schedulers send and somebody consumes.
- *Answers*: `tasks.calling` sends a call to a worker's own queue, and that worker notes the time. Another that is well
  cannot do it in its place.

While all processes are busy with long batches both kinds wait in their queues, and those batches sing instead. Who
looks at the ages: `tasks.health` and the supervisor of `callvault up`.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from config.clock import Clock
from storage.state import State, StateUnavailable

_NOTE = "canary"
_EVERY = 60.0  # seconds between two signs of life of a long task
_KEPT = 24 * 3600.0  # seconds an answer is kept: of workers that are long gone nothing shall remain

FRESH = timedelta(minutes=3)
"""A sign of life up to this age means that all is well: one beat may be missed."""


async def sing(state: State, clock: Clock) -> None:
    """Note that a worker was at work just now. StateUnavailable."""
    await state.note(_NOTE, {"at": clock.now().isoformat(), "by": f"{socket.gethostname()}:{os.getpid()}"})


async def last_song(state: State) -> datetime | None:
    """Return when a worker was last seen at work; None when that is not on record. StateUnavailable."""
    return _moment((await state.noted(_NOTE)).get("at"))


@dataclass(frozen=True, slots=True)
class Answer:
    """The last sign of life of one worker."""

    at: datetime
    call: str
    """The call it answers; empty where a long task sang."""
    deaf: tuple[str, ...]
    """Queues it should take messages from and does not."""


async def answer(state: State, clock: Clock, worker: str, call: str = "", deaf: Iterable[str] = ()) -> None:
    """Note that this very worker was at work just now. StateUnavailable."""
    said = {"at": clock.now().isoformat(), "call": call, "deaf": sorted(deaf)}
    await state.stash(f"answer:{worker}", json.dumps(said), _KEPT)


async def last_answer(state: State, worker: str) -> Answer | None:
    """Return the worker's last sign of life; None when there is none on record. StateUnavailable."""
    try:
        said = json.loads(await state.unstash(f"answer:{worker}") or "{}")
        at = _moment(said.get("at"))
        return Answer(at, str(said.get("call")), tuple(said.get("deaf", ()))) if at else None
    except (ValueError, TypeError, AttributeError):  # another version's
        return None


@asynccontextmanager
async def singing(state: State, clock: Clock, worker: str | None = None) -> AsyncIterator[None]:
    """Sing once a minute for as long as the block runs, beginning with its second minute; for that worker, too."""

    async def sing_on() -> None:
        while True:
            await clock.sleep(_EVERY)
            with contextlib.suppress(StateUnavailable):  # the next minute may reach it
                await sing(state, clock)
                if worker:
                    await answer(state, clock, worker)

    singer = asyncio.create_task(sing_on())
    try:
        yield
    finally:
        singer.cancel()
        await asyncio.gather(singer, return_exceptions=True)


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None
