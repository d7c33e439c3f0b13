"""A matter carried through the archive by the workers: turn by turn, one worker at each, with a note of how far it is.

Whatever was cut short, by a death or by trouble, is asked for again once a day; and for two days what is finished is
gone through once more, for a worker that hung for hours before it wrote what it had begun to write.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from config.events import Event
from config.logs import get_logger
from storage.errors import StoreError
from storage.holds import Hold
from storage.state import StateUnavailable
from storage.swept import Swept
from worker.runtime import Services
from worker.sweep import Told, state_of, sweep, swept
from worker.turns import TURN_SECONDS, alone

_NEW = timedelta(days=2)
_NOTE_EVERY = 1.0  # seconds

log = get_logger()

Send = Callable[[str], None]
"""Asks for a turn of a matter, by its name."""


def note_of(name: str) -> str:
    """Return the name of the note that tells how far a matter is: `swept`, `done`, `error`."""
    return f"hold:{name}"


async def turn(services: Services, name: str, send: Send) -> Swept | None:
    """Take one turn; `send(name)` asks for the next where it is not done. None where it is nobody's turn.

    StoreError, noted for who looks on.
    """
    hold = next((hold for hold in await services.matters.all() if hold.name == name), None)
    if hold is None:
        log.warning(Event.TASK_DROPPED, source="", detail=f"there is no matter {name[:80]!r}")
        return None
    async with alone(services, f"hold:{name}:{state_of(hold)}") as holds:
        if holds is None:
            return None
        try:
            told = await sweep(services, name, told=_noting(services), seconds=TURN_SECONDS)
        except StoreError as error:
            await services.state.note(note_of(name), {"swept": "", "done": "yes", "error": error.message[:500]})
            raise
        except asyncio.CancelledError:  # the worker is stopping, and this message is used up
            with suppress(StateUnavailable):
                send(name)
            raise
        if told is not None:
            await note(services, told)
            figures = told.model_dump(include={"of", "done", "recordings", "held", "freed", "right", "failed"})
            log.info(Event.HOLD_CARRIED, hold=name, **figures)
    if told is not None and not told.done:
        send(name)
    return told


async def due(services: Services, send: Send) -> None:
    """Ask for a turn of each matter that is not carried through, or was placed or released within two days."""
    for hold in await services.matters.all():
        told = await swept(services, hold.name)
        done = told is not None and told.of == state_of(hold) and told.done and not told.failed
        if not done or services.clock.now() - _last(hold) < _NEW:
            send(hold.name)


async def note(services: Services, told: Swept) -> None:
    """Leave how far it is, for who looks on."""
    done = "yes" if told.done else ""
    await services.state.note(note_of(told.name), {"swept": told.model_dump_json(), "done": done, "error": ""})


def _noting(services: Services) -> Told:
    noted = float("-inf")

    async def noting(told: Swept) -> None:
        nonlocal noted
        if services.clock.monotonic() - noted >= _NOTE_EVERY:
            noted = services.clock.monotonic()
            await note(services, told)

    return noting


def _last(hold: Hold) -> datetime:
    return (hold.released or hold.placed).at
