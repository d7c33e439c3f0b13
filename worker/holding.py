"""Whether a matter holds a recording that is being written: asked as late as can be, and again where it took long.

What is written within `SETTLED` seconds of the look it was written by is found by whoever places or releases a matter
meanwhile, who looks again after that time (`worker.sweep`); what took longer is looked at again here. So no moment is
left in which a recording could slip through between the two. A bucket that cannot hold is not asked about matters.
"""

from collections.abc import Iterable

from storage.sidecar import CallFacts
from worker.matters import FRESH
from worker.runtime import Services

SETTLED = 2 * FRESH
"""Seconds after its look at the matters within which a write is done, or is followed by another look."""

Written = tuple[str, str | None]
"""A key and its version."""


class Holding:
    """The matters of one recording, for the length of one try at it."""

    def __init__(self, services: Services, source: str, recording_id: str, call: CallFacts) -> None:
        self._services = services
        self._source = source
        self._recording_id = recording_id
        self._call = call
        self._looked: float | None = None

    async def wanted(self) -> bool:
        """Tell whether a matter holds the recording, as of a few seconds ago. StoreError where that cannot be known."""
        can = await self._services.store.ensure_probed()
        if can.object_lock is False:  # nobody can place a matter there
            return False
        return bool(await self._by_matters(fresh=False))

    async def settle(self, versions: Iterable[Written], *, held: bool) -> bool:
        """Have versions, which are held or not, be what the matters say by now; return what that is. ObjectMissing."""
        wanted = await self.wanted()
        if wanted != held:
            await self._set(list(versions), on=wanted)
        return wanted

    async def settle_late(self, versions: Iterable[Written], *, held: bool) -> None:
        """Do so for versions whose writing took so long that a matter placed meanwhile may have missed them."""
        if self._looked is not None and self._services.clock.monotonic() - self._looked > SETTLED:
            await self.settle(versions, held=held)

    async def _by_matters(self, *, fresh: bool) -> list[str]:
        matters = self._services.matters
        names = await matters.holding(self._source, self._recording_id, self._call, fresh=fresh)
        self._looked = matters.looked
        return names

    async def _set(self, versions: list[Written], *, on: bool) -> None:
        for key, version_id in versions:
            await self._services.store.set_legal_hold(key, version_id, on=on)
        if not on and await self._by_matters(fresh=True):  # another matter was placed while the hold was lifted
            await self._set(versions, on=True)
