"""One writer at a recording, where the store itself would let two in.

A store that heeds `If-None-Match` needs none of this. Elsewhere a claim in the shared state is held from before
the download until the sidecar is written: whoever comes second leaves the recording alone and finds it held later.
It is a courtesy between workers, and no lock: when the state is gone, or between a `run` and the workers, two may
still write at the same moment, and the store's count of versions tells them (`storage.s3.writing`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from storage.state import Claim, State, StateUnavailable
from worker.errors import SourceError
from worker.runtime import Services

Keep = Callable[[], Awaitable[None]]
"""Awaited before each write that others can see; raises Taken when somebody else may be writing by now."""

_CLAIM = 10.0  # seconds; less than a batch's lease, so that whoever takes a dead worker's batch over is not kept out
_RENEW_EVERY = 3.0  # two renewals may be lost


class Taken(SourceError):
    """Another worker is at this recording. No failure, and nothing to remember: look again at the next poll."""


@asynccontextmanager
async def claimed(services: Services, source: str, rid: str) -> AsyncIterator[Keep]:
    """Hold the claim of a recording for the block. Taken when another worker has it; StateUnavailable, StoreError."""
    can = await services.store.ensure_probed()
    if can.create_only and can.create_only_multipart:
        yield _needless
        return
    name = f"{source}:{rid}"
    holder = _Holder(services.state, name, await _take(services.state, name))
    renewing = asyncio.create_task(holder.renew())
    try:
        yield holder.keep
    finally:
        renewing.cancel()
        await asyncio.shield(holder.release())


async def _needless() -> None:
    """Keep nothing: the store refuses a second writer by itself."""


async def _take(state: State, name: str) -> Claim:
    claim = await state.claim(name, _CLAIM)
    if claim is None:
        raise Taken("another worker is archiving it just now")
    return claim


class _Holder:
    def __init__(self, state: State, name: str, claim: Claim) -> None:
        self._state = state
        self._name = name
        self._claim = claim

    async def keep(self) -> None:
        """Have the claim still, or again: a state that lost it forgot everybody else's too."""
        if not await self._claim.renew():
            self._claim = await _take(self._state, self._name)

    async def renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_EVERY)
            with suppress(StateUnavailable):  # `keep` finds out what that meant
                await self._claim.renew()

    async def release(self) -> None:
        with suppress(StateUnavailable):  # it lapses by itself
            await self._claim.release()
