"""Placing a matter and releasing it: one object in the bucket, in force from the moment it is there.

New recordings in scope are held from then on (`worker.holding`); those that are in the archive already are the
business of `worker.sweep`.
"""

import hashlib
from datetime import datetime

from config.mistakes import meant
from storage.errors import AlreadyExists
from storage.holds import NAME, Hold, Scope, Step
from storage.lock import no_legal_hold
from storage.retention import record_lock
from storage.sidecar import canonical
from worker.runtime import Services


class Unplaced(Exception):
    """What was asked for makes no sense as things are: a name used twice, no such matter. `str()` says what to do."""


def checked_name(name: str) -> str:
    """Return a name that a new matter may have. Unplaced."""
    if not NAME.fullmatch(name):
        raise Unplaced(
            f"{name!r} is no name for a hold: write 1 to 80 of a-z, 0-9, '.', '_' and '-', beginning with a letter or"
            " a digit, such as smith-v-acme-2026"
        )
    return name


async def place(services: Services, name: str, scope: Scope, step: Step) -> Hold:
    """Place a matter, once. Unplaced where the name is taken, NoObjectLock where nothing can be held; StoreError."""
    can = await services.store.ensure_probed()
    if can.object_lock is False:
        raise no_legal_hold(services.settings.archive.bucket)
    hold = Hold(name=checked_name(name), scope=scope, placed=step)
    try:
        await _write(services, hold, create_only=True)
    except AlreadyExists:
        before = await find(services, name)
        if before != hold:  # else it was this call, in a try whose answer was lost
            state = "released" if before.released else "in force"
            raise Unplaced(
                f"there is a hold {name} already, placed {_when(before.placed.at)} by {before.placed.by} and {state}:"
                f" a name is used once, so choose another; `callvault hold show {name}` tells what it is about"
            ) from None
    return hold


async def release(services: Services, name: str, step: Step) -> Hold:
    """Release a matter: it is written again, and holds no more. Unplaced where it does not hold; StoreError."""
    before = await find(services, name)
    if before.released is not None:
        raise Unplaced(
            f"{name} was released {_when(before.released.at)} by {before.released.by}: nothing is to be done"
        )
    hold = before.model_copy(update={"released": step})
    await _write(services, hold, create_only=False)
    return hold


async def find(services: Services, name: str) -> Hold:
    """Return a matter, active or released. Unplaced, with a suggestion, where there is none."""
    holds = await services.matters.all()
    for hold in holds:
        if hold.name == name:
            return hold
    names = [hold.name for hold in holds]
    hint = meant(name, names) or ("; `callvault hold list` shows all" if names else "; none was ever placed")
    raise Unplaced(f"there is no hold {name}{hint}")


async def _write(services: Services, hold: Hold, *, create_only: bool) -> None:
    body = canonical(hold)
    await services.store.put(
        services.keys.hold(hold.name),
        body,
        sha256=hashlib.sha256(body).hexdigest(),
        content_type="application/json",
        create_only=create_only,
        lock=record_lock(services.settings.retention, services.clock.now()),
    )


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
