"""The matters that are open, for whoever writes, plans or destroys: read from the bucket, and again every few seconds.

A worker that writes looks at most `FRESH` seconds back; who places a hold therefore looks again for what was written in
that time. Costs one listing per look, and one request for each matter that is new or changed.
"""

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
    """All matters of one archive, as this process knows them."""

    def __init__(self, store: ArchiveStore, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._looked: float | None = None
        self._known: dict[str, tuple[str, Hold]] = {}

    async def all(self, *, fresh: bool = True) -> list[Hold]:
        """Return all matters by name, released ones included; not `fresh`, as of up to `FRESH` seconds ago.

        StoreRefused where one of them cannot be read: what it holds would go unheld.
        """
        now = self._clock.monotonic()
        if fresh or self._looked is None or now - self._looked >= FRESH:
            self._known = await self._read()
            self._looked = now
        return [hold for _, hold in self._known.values()]

    async def active(self, *, fresh: bool = True) -> list[Hold]:
        """Return the matters that hold."""
        return [hold for hold in await self.all(fresh=fresh) if hold.active]

    async def holding(self, source: str, recording_id: str, call: CallFacts, *, fresh: bool = False) -> list[str]:
        """Return the names of the matters that hold a recording."""
        return [hold.name for hold in await self.active(fresh=fresh) if hold.scope.covers(source, recording_id, call)]

    async def _read(self) -> dict[str, tuple[str, Hold]]:
        found: dict[str, tuple[str, Hold]] = {}
        async for listed in self._store.objects(self._keys.hold("")):
            mark = f"{listed.modified.timestamp()}:{listed.bytes}"
            known = self._known.get(listed.key)
            found[listed.key] = known if known and known[0] == mark else (mark, await self._one(listed.key))
        return found

    async def _one(self, key: str) -> Hold:
        try:
            return Hold.model_validate_json(await self._store.get(key, max_bytes=_MAX_HOLD))
        except (ValueError, IntegrityError) as error:
            raise StoreRefused(
                f"{key} is no matter that can be read ({type(error).__name__}): whatever it holds would go unheld, so"
                " nothing is archived or deleted before it is put right",
                key,
            ) from error
