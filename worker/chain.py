"""The batches of one poll on their way through the queue: names, contents, and a sign of life.

A batch is called `{kind}-{random}.{number}`. `lanes` of them are sent at first; whoever finishes number n sends
n + lanes. The contents lie in the disposable state; a batch whose contents are gone is over.

A chain that waits belongs to nobody: should it be taken for dead although its batch is only queued, then whichever
chain's batch comes up first is carried out, and those of the others are dropped. Else polls that come faster than
workers get round to them would replace each other's chains for ever.
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

_LONGEST = 1000  # batches; a chain that says it has more was written by a stranger
BATCH = 200
"""Recordings in one batch: at 2 kB of metadata each, 400 kB in the state."""
KEPT = 6 * 3600.0
"""Seconds a batch's contents are kept; a longer chain ends early and the next poll goes on."""
WAITING = 180.0
"""Seconds after which a chain whose next batch waits for a worker counts as dead."""
ALIVE = 45.0
"""Seconds without a sign of life after which one counts as dead that a worker is at; signs come every five seconds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What an archive task is to do."""

    recordings: list[Recording]
    watermark: datetime | None
    following: str | None
    """The batch to send after this one, if any."""
    of: int
    """How many batches the chain has."""
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
        chunks = list(_chunks(recordings, BATCH))
        for number, chunk in enumerate(chunks):
            body = {
                "recordings": [recording.to_json() for recording in chunk],
                "watermark": watermark.isoformat() if watermark else None,
                "of": len(chunks),
                "again": again,
            }
            names.append(f"{self.id}.{number}")
            await state.stash(f"batch:{names[-1]}", json.dumps(body), KEPT)
        if names:
            await state.enqueue(self.id, names, KEPT)
            await self.wait(state)
        return names[: self.lanes]

    async def wait(self, state: State) -> None:
        """Give a sign of life for as long as it takes until a worker comes."""
        if await self.current(state):
            await state.stash(f"chain:{self.source}:{self.kind}", "", WAITING)

    async def live(self, state: State) -> bool:
        """Give a sign of life while at work; False when another chain is."""
        return await state.occupy(f"chain:{self.source}:{self.kind}", self.id, ALIVE)

    async def current(self, state: State) -> bool:
        """Tell whether no other chain of the source is at work."""
        return await state.unstash(f"chain:{self.source}:{self.kind}") in (self.id, "", None)

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
            _count(body.get("of")),
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

    async def abandon(self, state: State, count: int) -> None:
        """Forget all of its batches, whose contents would lie about for hours, and let the next poll begin another."""
        names = [f"{self.id}.{number}" for number in range(count)]
        for name in names:
            await state.drop(f"batch:{name}")
        await state.dequeue(self.id, names)
        await self.end(state)

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


def _count(told: object) -> int:
    return told if isinstance(told, int) and 0 < told <= _LONGEST else 0


def _chunks(items: Iterable[Recording], size: int) -> Iterator[list[Recording]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
