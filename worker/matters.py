"""The matters that are open, for whoever writes, plans or destroys: read from the bucket, and again every few seconds.

A worker that writes looks at most `FRESH` seconds back; who places a hold therefore looks again for what was written in
that time. Costs one listing per look, and one request for each matter that is new or changed; those who ask at the
same time share a look.
"""

import asyncio

from config.clock import Clock
from storage.errors import IntegrityError, StoreRefused
from storage.holds import Hold
from storage.keys import Keys
from storage.sidecar import CallFacts
from storage.store import ArchiveStore

FRESH = 5.0
"""Seconds for which a look at the matters is good enough for a write."""
_MAX_HOLD = 16 * 1024 * 1024


class Matters:
    """All matters of one archive, as this process knows them. For one event loop."""

    def __init__(self, store: ArchiveStore, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._known: dict[str, tuple[str, Hold]] = {}
        self._looked = float("-inf")
        self._begun = self._ended = 0  # numbers of looks: the last begun, the last that ended well
        self._looking: asyncio.Task[None] | None = None

    @property
    def looked(self) -> float:
        """When the look began that is known now, by the steady clock: what was placed before it is in it."""
        return self._looked

    async def all(self, *, fresh: bool = True) -> list[Hold]:
        """Return all matters by name, released ones included; not `fresh`, as of up to `FRESH` seconds ago.

        StoreRefused where one of them cannot be read: what it holds would go unheld.
        """
        least = self._begun + 1  # the look of somebody else that has begun already may miss what is there by now
        while self._ended < least and (fresh or self._clock.monotonic() - self._looked >= FRESH):
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
                self._looking.add_done_callback(_heard)
            await asyncio.shield(self._looking)  # who is cancelled must not take the others' look away
        return [hold for _, hold in self._known.values()]

    async def active(self, *, fresh: bool = True) -> list[Hold]:
        """Return the matters that hold."""
        return [hold for hold in await self.all(fresh=fresh) if hold.active]

    async def holding(
        self, source: str, recording_id: str, call: CallFacts, *, fresh: bool = False, whole: bool = True
    ) -> list[str]:
        """Return the names of the matters that hold a recording, or that may where its call is not known `whole`."""
        active = await self.active(fresh=fresh)
        return [hold.name for hold in active if hold.scope.covers(source, recording_id, call, whole=whole)]

    async def _look(self) -> None:
        self._begun += 1
        number, began = self._begun, self._clock.monotonic()
        self._known = await self._read()
        self._looked, self._ended = began, number

    async def _read(self) -> dict[str, tuple[str, Hold]]:
        found: dict[str, tuple[str, Hold]] = {}
        async for listed in self._store.objects(self._keys.hold("")):
            mark = f"{listed.modified.timestamp()}:{listed.bytes}"
            known = self._known.get(listed.key)
            found[listed.key] = known if known and known[0] == mark else (mark, await self._one(listed.key))
        return found

    async def _one(self, key: str) -> Hold:
        try:
            hold = Hold.model_validate_json(await self._store.get(key, max_bytes=_MAX_HOLD))
        except (ValueError, IntegrityError) as error:
            raise _unreadable(key, type(error).__name__) from error
        if self._keys.hold(hold.name) != key:
            raise _unreadable(key, f"it is that of {hold.name}")
        return hold


def _heard(look: asyncio.Task[None]) -> None:
    if not look.cancelled():
        look.exception()  # those who wait are told; where all of them have gone, nobody needs to know


def _unreadable(key: str, why: str) -> StoreRefused:
    return StoreRefused(
        f"{key} is no matter that can be read ({why}): whatever it holds would go unheld, so nothing is archived or"
        " deleted before it is put right",
        key,
    )
