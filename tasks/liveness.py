"""The canary: proof that this installation's workers take messages and work on them, and how old the proof is.

A worker can be connected, answer pings and consume nothing, so only consumption counts. A canary task arrives
once a minute; while all processes are busy with long batches it waits in the queue, and those batches sing in
its place. Who looks at the age: `tasks.health` and the supervisor of `callvault up`.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from config.clock import Clock
from storage.state import State, StateUnavailable

_NOTE = "canary"
_EVERY = 60.0  # seconds between two signs of life of a long task

FRESH = timedelta(minutes=3)
"""A canary up to this age means that the workers are well: one beat may be missed."""


async def sing(state: State, clock: Clock) -> None:
    """Note that a worker was at work just now. StateUnavailable."""
    await state.note(_NOTE, {"at": clock.now().isoformat(), "by": f"{socket.gethostname()}:{os.getpid()}"})


async def last_song(state: State) -> datetime | None:
    """Return when a worker was last seen at work; None when that is not on record. StateUnavailable."""
    try:
        return datetime.fromisoformat((await state.noted(_NOTE)).get("at", ""))
    except ValueError:
        return None


@asynccontextmanager
async def singing(state: State, clock: Clock) -> AsyncIterator[None]:
    """Sing once a minute for as long as the block runs, beginning with its second minute."""

    async def sing_on() -> None:
        while True:
            await clock.sleep(_EVERY)
            with contextlib.suppress(StateUnavailable):  # the next minute may reach it
                await sing(state, clock)

    singer = asyncio.create_task(sing_on())
    try:
        yield
    finally:
        singer.cancel()
        await asyncio.gather(singer, return_exceptions=True)
