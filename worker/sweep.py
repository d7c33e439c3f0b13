"""Carrying a matter through the archive: every version of what it is about gets the legal hold that the matters say.

Placed or released, the work is the same: what an active matter covers is held, what none covers any more is free. So it
may run twice, at the same time too, be killed anywhere and go on where it was. Two looks: the first goes through all
days in scope, the second through what was written while workers may not yet have known (`worker.holding`).

The matters are read again for every batch, and once more after a hold was lifted: one that was placed in between is
honoured. One day of one source is in memory at a time.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, TypeVar

from storage.errors import IntegrityError, LockMissing, ObjectMissing
from storage.holds import Hold
from storage.keys import NO_DATE, rid
from storage.sidecar import CallFacts, canonical
from storage.store import Version
from storage.swept import Place, Swept
from worker import entries
from worker.gaps import read_gap
from worker.holding import SETTLED
from worker.matters import FRESH
from worker.runtime import Services

T = TypeVar("T")
X = TypeVar("X")

Told = Callable[[Swept], Awaitable[None]]
"""Is told how far it is, after every batch."""

KINDS = ("recordings", "gaps", "quarantine")
"""What of a recording there may be: media and sidecar, the record of a gap before, evidence."""

AT_ONCE = 16
"""Requests on their way at the same time."""
_BATCH = 64  # recordings for which one look at the matters is good
_SAVE_EVERY = 60.0  # seconds; a death costs that much of the way
_MAX_SWEPT = 1024 * 1024
_NAMED = 20  # failures that are told one by one
_DAY = timedelta(days=1)
_CLOCKS_APART = timedelta(minutes=1)  # a store's own machines


async def sweep(
    services: Services, name: str, *, told: Told | None = None, seconds: float | None = None
) -> Swept | None:
    """Carry a matter through the archive, and return what came of it; None where there is no such matter.

    After so many `seconds` it stops where it is, which is not `done`: called again, by anybody, it goes on from there.
    A way that was done before is gone again. A matter released meanwhile is carried through as that. StoreError.
    """
    ends = services.clock.monotonic() + seconds if seconds is not None else float("inf")
    while hold := await _matter(services, name):
        way = _Way(services, hold, await _start(services, hold), ends, told)
        if await way.go():
            return way.swept
    return None


async def swept(services: Services, name: str) -> Swept | None:
    """Return how far a matter was carried when that was last put down; None where it is not known."""
    try:
        body = await services.store.get(services.keys.swept(name), max_bytes=_MAX_SWEPT)
        return Swept.model_validate_json(body)
    except (ObjectMissing, ValueError, IntegrityError):  # it is made again
        return None


def state_of(hold: Hold) -> Literal["placed", "released"]:
    """Return what there is to be carried through."""
    return "placed" if hold.active else "released"


async def _matter(services: Services, name: str) -> Hold | None:
    return next((hold for hold in await services.matters.all() if hold.name == name), None)


async def _start(services: Services, hold: Hold) -> Swept:
    before, now = await swept(services, hold.name), services.clock.now()
    if before and before.of == state_of(hold) and not before.done:
        return before
    return Swept(name=hold.name, of=state_of(hold), began_at=now, at=now)


@dataclass(frozen=True, slots=True)
class _Found:
    """One recording as it lies there. `call` is None where nothing says which call it was."""

    source: str
    rid: str
    versions: list[Version]
    recording_id: str = ""
    call: CallFacts | None = None
    trouble: str = ""

    def covered(self, hold: Hold) -> bool:
        """Tell whether a matter is about it; without a call, whether the matter names it."""
        if self.call is not None:
            return hold.scope.covers(self.source, self.recording_id, self.call)
        return any(told == (self.source, self.rid) for told in _named(hold))


def _named(hold: Hold) -> list[tuple[str, str]]:
    """Return source and rid of the recordings that a matter names."""
    split = (told.partition("/") for told in hold.scope.recordings)
    return [(source, rid(recording_id)) for source, _, recording_id in split]


class _Overtaken(Exception):
    """The matter is not what it was: another way begins."""


class _Way:
    def __init__(self, services: Services, hold: Hold, start: Swept, ends: float, told: Told | None) -> None:
        self.swept = start
        self._services = services
        self._store = services.store
        self._hold = hold
        self._ends = ends
        self._told = told
        self._permits = asyncio.Semaphore(AT_ONCE)
        self._saved = services.clock.monotonic()
        self._named = {source: {one for named, one in _named(hold) if named == source} for source, _ in _named(hold)}
        self._counted: set[tuple[str, str]] = set()  # of what the second look will see again
        self._failed: set[str] = set()

    async def go(self) -> bool:
        """Go as far as the time lasts; False where the matter was released, or placed anew, on the way."""
        clock = self._services.clock
        again = clock.monotonic() + SETTLED + FRESH  # the worker that looked last has written by then
        try:
            since = await self._changed()
            if self.swept.look == 1:
                if not await self._look(since):
                    return True
                self._add(look=2, place=None)
            await clock.sleep(max(0.0, again - clock.monotonic()))
            if await self._look(since):
                self._add(done=True)
                await self._save()
        except _Overtaken:
            return False
        return True

    async def _changed(self) -> datetime:
        """Return when the matter was placed or released, by the store's own clock, and a little before that.

        Of a matter that is carried through once more, long after, nothing has to be looked at twice.
        """
        info = await self._store.head(self._services.keys.hold(self._hold.name))
        if info is None:
            raise _Overtaken
        return max(info.modified - _CLOCKS_APART, self.swept.began_at - _DAY)  # what is older all workers knew of

    async def _look(self, since: datetime) -> bool:
        """Go through all days in scope; False when the time is over."""
        places = await self._places()
        self._add(of_days=len(places))
        for number, (source, day) in enumerate(places):
            self._add(days=number)
            after = self.swept.place.after(source, day) if self.swept.place else ""
            if after is not None and not await self._day(source, day, after, since):
                return False
        self._add(days=len(places))
        return True

    async def _day(self, source: str, day: date, after: str, since: datetime) -> bool:
        """Go through the recordings of one day that come after one; False when the time is over."""
        found = await self._versions(source, day, since if self.swept.look == 2 else None)
        rids = sorted(one for one in found if one > after)
        for start in range(0, max(1, len(rids)), _BATCH):
            batch = rids[start : start + _BATCH]
            await self._batch(source, day, {one: found[one] for one in batch}, since)
            left = start + _BATCH < len(rids)
            self._add(place=Place(source=source, day=day, rid=batch[-1] if left else None))
            await self._report()
            if self._services.clock.monotonic() >= self._ends:
                await self._save()
                return False
        return True

    async def _places(self) -> list[tuple[str, date]]:
        scope, found = self._hold.scope, set()
        for kind in KINDS:
            for source in await entries.sources(self._services, kind):
                if scope.may_be_of(source):
                    days = await entries.days(self._services, source, kind)
                    found |= {(source, day) for day in days if self._may_be_on(day)}
        return sorted(found)

    def _may_be_on(self, day: date) -> bool:
        """Tell whether a day can hold a call of the span; a phone system's clock may have been put right by a day."""
        scope = self._hold.scope
        early = scope.from_ is not None and day < scope.from_.date() - _DAY
        late = scope.to is not None and day > scope.to.date() + _DAY
        return day == NO_DATE or not (early or late)

    async def _versions(self, source: str, day: date, since: datetime | None) -> dict[str, list[Version]]:
        """Return what lies on a day, by rid; with `since`, of recordings of which something was written after it."""
        only = self._named.get(source)
        narrow = f"{next(iter(only))}." if only and len(only) == 1 else ""
        found: dict[str, list[Version]] = {}
        for kind in KINDS:
            prefix = self._services.keys.partition(kind, source, day) + narrow
            async for version in self._store.versions(prefix):
                parsed = self._services.keys.parse(version.key)
                if parsed is None:
                    continue
                one = parsed.rid.rpartition(".")[0] if kind == "quarantine" else parsed.rid
                if only is None or one in only:
                    found.setdefault(one, []).append(version)
        if since is None:
            return found
        return {one: rows for one, rows in found.items() if any(row.modified >= since for row in rows)}

    async def _batch(self, source: str, day: date, batch: dict[str, list[Version]], since: datetime) -> None:
        async def read(one: str) -> _Found:
            return await self._read(source, day, one, batch[one])

        async def put_right(one: _Found) -> bool:
            return await self._put_right(one, active)

        found = await self._together(read, batch)
        meant = [one for one in found if self._counts(one, since)]
        active = await self._active()
        freed = await self._together(put_right, meant)
        again = [one for one, lifted in zip(meant, freed, strict=True) if lifted]
        if again:
            active = await self._active()
            await self._together(put_right, [one for one in again if any(one.covered(hold) for hold in active)])

    async def _active(self) -> list[Hold]:
        """Return the matters that hold, as of now."""
        holds = await self._services.matters.all()
        if not any(hold.name == self._hold.name and state_of(hold) == self.swept.of for hold in holds):
            raise _Overtaken
        return [hold for hold in holds if hold.active]

    async def _read(self, source: str, day: date, one: str, versions: list[Version]) -> _Found:
        """Find out which call it was, from its sidecar or else the record of its gap."""
        keys, found = self._services.keys, _Found(source, one, versions)
        sidecar, there = (
            keys.sidecar(source, day, one),
            {version.key: version for version in versions if version.latest},
        )
        gap = (
            await read_gap(self._services, keys.gap(source, day, one)) if keys.gap(source, day, one) in there else None
        )
        if gap is not None:
            found = _Found(source, one, versions, gap.recording_id, gap.call)
        if sidecar not in there:
            return found
        trouble = f"{sidecar} cannot be read: whether {self._hold.name} covers it is not known"
        if there[sidecar].marker:
            trouble = (
                f"{sidecar} is hidden behind a delete marker, so whether {self._hold.name} covers it is not known:"
                f" remove the marker (its version is {there[sidecar].version_id})"
            )
            return _Found(source, one, versions, found.recording_id, found.call, trouble)
        try:
            entry = await entries.read_entry(self._services, source, day, one)
        except ObjectMissing:  # destroyed since it was listed
            return found
        except (ValueError, IntegrityError):
            return _Found(source, one, versions, found.recording_id, found.call, trouble)
        return _Found(source, one, versions, entry.recording_id, entry.call)

    def _counts(self, found: _Found, since: datetime) -> bool:
        """Tell whether the matter is about it; count it once."""
        meant = found.covered(self._hold)
        if found.trouble and not meant:
            self._fail(found.rid, found.trouble)
        name = (found.source, found.rid)
        if meant and name not in self._counted:
            self._add(recordings=self.swept.recordings + 1)
            if any(version.modified >= since for version in found.versions):
                self._counted.add(name)
        return meant

    async def _put_right(self, found: _Found, active: list[Hold]) -> bool:
        """Give every version the hold that the matters say; tell whether any was lifted."""
        on = any(found.covered(hold) for hold in active)
        rows = [version for version in found.versions if not version.marker]
        changed = [await self._set(version, on=on) for version in rows]
        return any(changed) and not on

    async def _set(self, version: Version, *, on: bool) -> bool:
        try:
            if (await self._store.protection(version.key, version.version_id)).legal_hold is on:
                self._add(right=self.swept.right + (self.swept.look == 1))
                return False
            await self._store.set_legal_hold(version.key, version.version_id, on=on)
        except ObjectMissing:  # destroyed since it was listed
            return False
        except LockMissing as error:
            self._fail(version.key, error.message)
            return False
        if on:
            self._add(held=self.swept.held + 1)
        else:
            self._add(freed=self.swept.freed + 1)
        return True

    async def _together(self, work: Callable[[X], Awaitable[T]], items: Iterable[X]) -> list[T]:
        async def limited(item: X) -> T:
            async with self._permits:
                return await work(item)

        tasks = [asyncio.create_task(limited(item)) for item in items]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _fail(self, what: str, sentence: str) -> None:
        """Count a failure, once, and name it while there are few."""
        if what in self._failed:
            return
        self._failed.add(what)
        self._add(failed=self.swept.failed + 1)
        if len(self.swept.failures) < _NAMED:
            self._add(failures=(*self.swept.failures, sentence))

    def _add(self, **fields: object) -> None:
        self.swept = self.swept.model_copy(update={"at": self._services.clock.now(), **fields})

    async def _report(self) -> None:
        if self._told:
            await self._told(self.swept)
        if self._services.clock.monotonic() - self._saved >= _SAVE_EVERY:
            await self._save()

    async def _save(self) -> None:
        body = canonical(self.swept)
        await self._store.put(
            self._services.keys.swept(self._hold.name),
            body,
            sha256=hashlib.sha256(body).hexdigest(),
            content_type="application/json",
            create_only=False,
        )
        self._saved = self._services.clock.monotonic()
