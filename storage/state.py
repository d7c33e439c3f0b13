"""Disposable state: what makes work cheaper, fairer and single-flight, and is rebuilt when it is gone.

Nothing here decides whether a recording is archived: the bucket alone does. Losing any of it, at any
moment, costs a listing, a wait or a second try. Implementations: `storage.state_redis` (all workers on all
machines) and `storage.state_local` (one `callvault run`, a file in `state_dir`). Both pass
`tests/contract/state_contract.py`. Times are aware UTC; durations are seconds. Any method may raise
`StateUnavailable`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol


class StateUnavailable(Exception):
    """The state cannot be reached or written just now: nothing is lost, try again later. Names no password."""


class StateRefused(StateUnavailable):
    """It cannot be used until somebody acts: the address, a password, rights, or the kind of server is wrong."""


class StateUnfit(StateRefused):
    """Its own settings lose work: it evicts keys, or is a cluster."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of a recording that could not be archived yet."""

    first_try_at: datetime
    tries: int
    not_before: datetime
    """No further try before this time."""
    error: str
    """A sentence for `status`; redacted by whoever wrote it."""
    crashes: int = 0
    """Tries that ended with the worker's death; counted before the dangerous step, taken back after it."""
    recording: dict[str, Any] | None = None
    """The recording as it was listed, JSON-able: what a gap record needs should it be listed no more."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A source that asked to be left alone, or that cannot be used until somebody acts."""

    until: datetime
    reason: str


class Claim(Protocol):
    """The right to do something alone. Lost when its holder stops renewing for `ttl` seconds."""

    async def renew(self) -> bool:
        """Extend by another `ttl`; False when it was lost, and then it stays lost."""
        ...

    async def release(self) -> None:
        """Give it back; does nothing when it was lost to another holder."""
        ...


class Lease(Claim, Protocol):
    """A claim that can be told from those before it, also after its end."""

    @property
    def fence(self) -> int:
        """A number that grows with every lease granted under the same name."""
        ...


PERMIT_LIFE = 8.0
"""Seconds for which a permit holds unrenewed, by the state's own clock. One number, two uses:

Who holds a permit and cannot renew it has ended its request before it lapses (`worker.limits`). So no permit of
earlier is in use any more once so much time has passed, and a state that was lost, by a flush, a restart or a
failover, grants no new one for exactly so long: by then all who hold one have told it again, or have stopped.

Shorter, and a short absence of the state would end transfers that were going well; longer, and every loss of the
state, and every worker that dies, would cost its sources that much more time.
"""


class Permits(Protocol):
    """Caps and pace of the requests to each source, over all who share this state."""

    async def acquire(self, source: str, limit: int) -> str | None:
        """Take one of `limit` permits and return its token. It lapses `PERMIT_LIFE` after its last renewal.

        None when all are taken, and for `PERMIT_LIFE` after what was known of them was lost.
        """
        ...

    async def renew(self, source: str, tokens: Iterable[str]) -> frozenset[str]:
        """Extend permits that are still in use, and return those that lapsed: their places may be taken.

        A state that has just been lost takes its holders' word for it.
        """
        ...

    async def release(self, source: str, token: str) -> None:
        """Give a permit back; an unknown token is ignored."""
        ...

    async def reserve(self, source: str, per_second: float) -> float:
        """Book the next place in the source's pace and return how many seconds to wait for it."""
        ...

    async def pause(self, source: str, until: datetime, reason: str) -> None:
        """Leave the source alone until then; a shorter pause never replaces a longer one."""
        ...

    async def paused(self, source: str) -> Pause | None:
        """Return the pause in force, if any."""
        ...

    async def unpause(self, source: str) -> None:
        """Forget the pause."""
        ...


class State(Permits, Protocol):
    """Everything disposable, for one archive (its namespace)."""

    async def lease(self, name: str, ttl: float) -> Lease | None:
        """Try to get the lease `name`; None when somebody else has it. Never waits."""
        ...

    async def claim(self, name: str, ttl: float) -> Claim | None:
        """Like `lease`, for names without number, such as recordings': nothing of it stays once it is over."""
        ...

    async def watermark(self, source: str) -> datetime | None:
        """Return the watermark; None when it is not known here and must be read from the bucket."""
        ...

    async def set_watermark(self, source: str, value: datetime, fence: int) -> bool:
        """Move the watermark forward. False, and nothing changes, for an older value or an older fence."""
        ...

    async def held(self, source: str, day: date) -> frozenset[str] | None:
        """Return the `rid`s known to be held for that day; None when the day must be read from the bucket."""
        ...

    async def remember_held(self, source: str, day: date, rids: Iterable[str]) -> None:
        """Remember a day as read from the bucket."""
        ...

    async def add_held(self, source: str, day: date, rids: Iterable[str]) -> None:
        """Add some to a remembered day; does nothing where the day is not remembered."""
        ...

    async def attempts(self, source: str) -> dict[str, Attempt]:
        """Return all recordings of the source that are being retried, by `rid`."""
        ...

    async def attempt(self, source: str, rid: str) -> Attempt | None:
        """Return one of them."""
        ...

    async def save_attempt(self, source: str, rid: str, attempt: Attempt) -> None:
        """Remember one of them."""
        ...

    async def forget_attempt(self, source: str, rid: str) -> None:
        """Forget one of them: held, a gap, or gone."""
        ...

    async def stash(self, name: str, body: str, ttl: float) -> None:
        """Keep a text for `ttl` seconds, such as the recordings of a batch on its way to an archive task."""
        ...

    async def unstash(self, name: str) -> str | None:
        """Return a kept text; None when it is gone."""
        ...

    async def drop(self, name: str) -> None:
        """Forget a kept text."""
        ...

    async def occupy(self, name: str, owner: str, ttl: float) -> bool:
        """Keep the owner as the text of that name, unless another's is kept, which is told by False.

        Nobody's is none, and an empty text. Unlike a lease, several may occupy it as the same owner.
        """
        ...

    async def enqueue(self, source: str, rids: Iterable[str], ttl: float) -> list[str]:
        """Mark recordings as on their way for at most `ttl` seconds; return those that were not already."""
        ...

    async def dequeue(self, source: str, rids: Iterable[str]) -> None:
        """Take the marks back."""
        ...

    async def enqueued(self, source: str) -> int:
        """Return how many recordings of the source are on their way."""
        ...

    async def note(self, name: str, fields: dict[str, str]) -> None:
        """Replace a small record for people, such as the outcome of a source's last poll."""
        ...

    async def noted(self, name: str) -> dict[str, str]:
        """Return such a record; empty when there is none."""
        ...

    async def ping(self) -> None:
        """Raise when the state cannot be reached."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
