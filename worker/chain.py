"""The batches of one poll on their way through the queue: names, contents, and a sign of life.

A batch is called `{kind}-{random}.{number}`. `lanes` of them are sent at first; whoever finishes number n sends
n + lanes. The contents lie in the disposable state; a batch whose contents are gone is over.
"""

import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Self

from storage.state import State
from storage.state_records import moment_or_none
from worker.model import Recording

BATCH = 100
"""Recordings in one batch: at 2 kB of metadata each, 200 kB in the state."""
_KEPT = 6 * 3600.0  # seconds a batch's contents are kept; a longer chain ends early and the next poll goes on
ALIVE = 180.0
"""Seconds without a sign of life after which a chain counts as dead."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What an archive task is to do."""

    recordings: list[Recording]
    watermark: datetime | None
    following: str | None
    """The batch to send after this one, if any."""
    again: dict[str, str] | None
    """How to look again when the chain is over, because there will be more: with which words the next look
    is asked for. None where nothing more is known to be due."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One poll's batches."""

    source: str
    kind: str
    """`poll` or `backfill`: a source may have one living chain of each."""
    id: str
    lanes: int

    @classmethod
    def new(cls, source: str, kind: str, lanes: int) -> Self:
        """Return a chain with a name of its own."""
        return cls(source, kind, f"{kind}-{secrets.token_hex(8)}", lanes)

    @classmethod
    def of(cls, source: str, batch: str, lanes: int) -> Self:
        """Return the chain that a batch belongs to."""
        chain = batch.partition(".")[0]
        return cls(source, chain.partition("-")[0], chain, lanes)

    @staticmethod
    async def alive(state: State, source: str, kind: str) -> bool:
        """Tell whether the source has a chain of this kind that gave a sign of life lately."""
        return await state.unstash(f"chain:{source}:{kind}") is not None

    async def begin(
        self,
        state: State,
        recordings: Iterable[Recording],
        watermark: datetime | None,
        again: dict[str, str] | None,
    ) -> list[str]:
        """Lay down all batches and return the names of those to send now."""
        names = []
        for number, chunk in enumerate(_chunks(recordings, BATCH)):
            body = {
                "recordings": [recording.to_json() for recording in chunk],
                "watermark": watermark.isoformat() if watermark else None,
                "again": again,
            }
            names.append(f"{self.id}.{number}")
            await state.stash(f"batch:{names[-1]}", json.dumps(body), _KEPT)
        if names:
            await state.enqueue(self.id, names, _KEPT)
            await self.live(state)
        return names[: self.lanes]

    async def live(self, state: State) -> None:
        """Give a sign of life."""
        await state.stash(f"chain:{self.source}:{self.kind}", self.id, ALIVE)

    async def current(self, state: State) -> bool:
        """Tell whether this is (still, or as far as anybody remembers) the source's chain."""
        return await state.unstash(f"chain:{self.source}:{self.kind}") in (self.id, None)

    async def load(self, state: State, batch: str) -> Batch | None:
        """Return what a batch is to do; None when its contents are gone, or are not such a thing."""
        text = await state.unstash(f"batch:{batch}")
        body = _object(text)
        if body is None:
            return None
        number = int(batch.partition(".")[2])
        following = f"{self.id}.{number + self.lanes}"
        exists = await state.unstash(f"batch:{following}") is not None
        recordings, again = body.get("recordings"), body.get("again")
        kept = map(Recording.kept, recordings if isinstance(recordings, list) else [])
        return Batch(
            [recording for recording in kept if recording],
            moment_or_none(body.get("watermark")),
            following if exists else None,
            again if again == {} or (isinstance(again, dict) and set(again) == {"from", "to"}) else None,
        )

    async def finish(self, state: State, batch: str) -> bool:
        """Forget a finished batch; True when it was the last of the chain, which is then over."""
        await state.drop(f"batch:{batch}")
        await state.dequeue(self.id, [batch])
        if await state.enqueued(self.id):
            return False
        await self.end(state)
        return True

    async def end(self, state: State) -> None:
        """Let the next poll begin another chain, whatever is left of this one."""
        if await self.current(state):
            await state.drop(f"chain:{self.source}:{self.kind}")

    def lane(self, batch: str) -> int:
        """Return which of the parallel rows a batch belongs to."""
        return int(batch.partition(".")[2]) % self.lanes


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        body = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _chunks(items: Iterable[Recording], size: int) -> Iterator[list[Recording]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
