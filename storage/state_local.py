"""Disposable state of one `callvault run`: in memory, with what the next run profits from in `state_dir`.

`storage.state` says what each method promises, `storage.state_files` how files and locks are kept: attempts and
pauses outlive the process, leases hold against every process of the machine, the rest is forgotten at the end.
Permits do not lapse: nobody else shares them. All workers on all machines: `storage.state_redis`.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

from config.clock import Clock
from storage.keys import rid as file_safe
from storage.state import Attempt, Pause
from storage.state_files import FileLock, KeptFile, try_lock
from storage.state_records import to_micros

_ATTEMPTS_KEPT = timedelta(days=30)  # after the last was due: the recording has left the source's windows


class LocalLease:
    """Implements `storage.state.Lease` with a lock file: it lasts until it is released or the process dies."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    @property
    def fence(self) -> int:
        """A number that grows with every lease granted under the same name."""
        return self._lock.fence

    async def renew(self) -> bool:
        """Return whether it is still held; False once it was released."""
        return self._lock.held

    async def release(self) -> None:
        """Give it back; may be called twice."""
        self._lock.release()


class LocalClaim:
    """Implements `storage.state.Claim` with a name in a set: it lasts until it is released."""

    def __init__(self, claimed: set[str], name: str) -> None:
        self._claimed: set[str] | None = claimed
        self._name = name

    async def renew(self) -> bool:
        """Return whether it is still held; False once it was released."""
        return self._claimed is not None

    async def release(self) -> None:
        """Give it back; may be called twice."""
        claimed, self._claimed = self._claimed, None
        if claimed is not None:
            claimed.discard(self._name)


@dataclass
class _Source:
    """What is remembered of one source for as long as the process lives."""

    kept: KeptFile
    permits: set[str] = field(default_factory=set)
    next_place: float = 0.0
    watermark: tuple[datetime, int] | None = None
    held: dict[date, set[str]] = field(default_factory=dict)
    queued: dict[str, float] = field(default_factory=dict)


class LocalState:
    """Implements `storage.state.State`. `folder` is made when the first file is written."""

    def __init__(self, folder: Path, namespace: str, clock: Clock) -> None:
        self._folder = folder
        self._namespace = namespace
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._tokens = itertools.count(1)
        self._stashed: dict[str, tuple[str, float]] = {}
        self._notes: dict[str, dict[str, str]] = {}
        self._claimed: set[str] = set()

    def _of(self, source: str) -> _Source:
        if source not in self._sources:
            # a file a source: two runs at once never work on the same source, and so never on the same file
            name = f"run-{file_safe(self._namespace)}-{file_safe(source)}.json"
            self._sources[source] = _Source(KeptFile(self._folder / name))
        return self._sources[source]

    async def lease(self, name: str, ttl: float) -> LocalLease | None:  # noqa: ARG002 - a lock file knows no time
        """Try to get the lease `name`; None when this or another process of the machine has it."""
        path = self._folder / f"lock-{file_safe(self._namespace)}-{file_safe(name)}"
        lock = try_lock(path, to_micros(self._clock.now()) // 1000)
        return LocalLease(lock) if lock else None

    async def claim(self, name: str, ttl: float) -> LocalClaim | None:  # noqa: ARG002 - it ends with the process
        """Try to get the claim `name`; None when it is taken here. Other processes are kept off by the run's lease."""
        if name in self._claimed:
            return None
        self._claimed.add(name)
        return LocalClaim(self._claimed, name)

    async def acquire(self, source: str, limit: int) -> str | None:
        """Take one of `limit` permits; None when all are taken."""
        permits = self._of(source).permits
        if len(permits) >= limit:
            return None
        token = str(next(self._tokens))
        permits.add(token)
        return token

    async def renew(self, source: str, tokens: Iterable[str]) -> frozenset[str]:
        """Return those that were never given out: permits of one process do not lapse."""
        return frozenset(tokens) - self._of(source).permits

    async def release(self, source: str, token: str) -> None:
        """Give a permit back."""
        self._of(source).permits.discard(token)

    async def reserve(self, source: str, per_second: float) -> float:
        """Book the next place in the source's pace and return how many seconds to wait for it."""
        known, now = self._of(source), self._clock.monotonic()
        place = max(known.next_place, now)
        known.next_place = place + 1 / per_second
        return place - now

    async def pause(self, source: str, until: datetime, reason: str) -> None:
        """Leave the source alone until then, in later runs too."""
        file = self._of(source).kept
        kept = file.read()
        if until > self._clock.now() and (kept.pause is None or until > kept.pause.until):
            kept.pause = Pause(until, reason)
            file.write()

    async def paused(self, source: str) -> Pause | None:
        """Return the pause in force, if any."""
        pause = self._of(source).kept.read().pause
        return pause if pause and pause.until > self._clock.now() else None

    async def unpause(self, source: str) -> None:
        """Forget the pause."""
        file = self._of(source).kept
        kept = file.read()
        if kept.pause:
            kept.pause = None
            file.write()

    async def watermark(self, source: str) -> datetime | None:  # noqa: ARG002 - the same for all sources
        """Return None: a run reads the watermark from the bucket."""
        return None

    async def set_watermark(self, source: str, value: datetime, fence: int) -> bool:
        """Accept a watermark of this run. False for an older value or an older fence than it accepted before."""
        known = self._of(source)
        if known.watermark and (value < known.watermark[0] or fence < known.watermark[1]):
            return False
        known.watermark = (value, fence)
        return True

    async def held(self, source: str, day: date) -> frozenset[str] | None:
        """Return the `rid`s known to be held for that day; None when the day must be read from the bucket."""
        rids = self._of(source).held.get(day)
        return None if rids is None else frozenset(rids)

    async def remember_held(self, source: str, day: date, rids: Iterable[str]) -> None:
        """Remember a day as read from the bucket."""
        self._of(source).held[day] = set(rids)

    async def add_held(self, source: str, day: date, rids: Iterable[str]) -> None:
        """Add some to a remembered day; does nothing where the day is not remembered."""
        if (known := self._of(source).held.get(day)) is not None:
            known.update(rids)

    async def attempts(self, source: str) -> dict[str, Attempt]:
        """Return all recordings of the source that are being retried, by `rid`."""
        return dict(self._of(source).kept.read().attempts)

    async def attempt(self, source: str, rid: str) -> Attempt | None:
        """Return one of them."""
        return self._of(source).kept.read().attempts.get(rid)

    async def save_attempt(self, source: str, rid: str, attempt: Attempt) -> None:
        """Remember one of them, in later runs too."""
        file = self._of(source).kept
        kept = file.read()
        kept.attempts[rid] = attempt
        forgotten = self._clock.now() - _ATTEMPTS_KEPT
        kept.attempts = {known: one for known, one in kept.attempts.items() if one.not_before > forgotten}
        file.write()

    async def forget_attempt(self, source: str, rid: str) -> None:
        """Forget one of them."""
        file = self._of(source).kept
        if file.read().attempts.pop(rid, None):
            file.write()

    async def stash(self, name: str, body: str, ttl: float) -> None:
        """Keep a text for `ttl` seconds."""
        self._stashed[name] = (body, self._clock.monotonic() + ttl)

    async def unstash(self, name: str) -> str | None:
        """Return a kept text; None when it is gone."""
        body, until = self._stashed.get(name, (None, 0.0))
        return body if until > self._clock.monotonic() else None

    async def drop(self, name: str) -> None:
        """Forget a kept text."""
        self._stashed.pop(name, None)

    async def occupy(self, name: str, owner: str, ttl: float) -> bool:
        """Keep the owner as the text of that name, unless another's is kept."""
        if await self.unstash(name) not in (None, "", owner):
            return False
        await self.stash(name, owner, ttl)
        return True

    async def enqueue(self, source: str, rids: Iterable[str], ttl: float) -> list[str]:
        """Mark recordings as on their way for at most `ttl` seconds; return those that were not already."""
        queued, now = self._of(source).queued, self._clock.monotonic()
        fresh = []
        for rid in rids:
            if queued.get(rid, now) <= now:
                queued[rid] = now + ttl
                fresh.append(rid)
        return fresh

    async def dequeue(self, source: str, rids: Iterable[str]) -> None:
        """Take the marks back."""
        for rid in rids:
            self._of(source).queued.pop(rid, None)

    async def enqueued(self, source: str) -> int:
        """Return how many recordings of the source are on their way."""
        now = self._clock.monotonic()
        return sum(until > now for until in self._of(source).queued.values())

    async def note(self, name: str, fields: dict[str, str]) -> None:
        """Replace a small record for people."""
        self._notes[name] = dict(fields)

    async def noted(self, name: str) -> dict[str, str]:
        """Return such a record; empty when there is none."""
        return dict(self._notes.get(name, {}))

    async def ping(self) -> None:
        """Do nothing: memory answers."""

    async def aclose(self) -> None:
        """Do nothing: there are no connections. Leases end with their release, or with the process."""
