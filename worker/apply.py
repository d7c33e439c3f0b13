"""Bringing a longer policy to recordings that are in the archive: their locks are extended, nothing is ever shortened.

Which ones is known from the listing and the days' indexes; the store is asked only about those that today's policy
keeps longer than anything that was said before. A sidecar stays as it is: the lock is the record of growth.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from storage.day_index import Row
from storage.entry import Entry
from storage.errors import ObjectMissing, StoreRefused
from storage.lock import Lock
from storage.retention import Measured, Yardstick
from storage.store import Version
from worker.abreast import abreast
from worker.drift import SLACK
from worker.entries import Day, days, read_day, sources
from worker.indexing import write_rows
from worker.plan import said_before
from worker.runtime import Services

_TOLD = 1000


@dataclass(slots=True)
class Applied:
    """What came of it."""

    dry_run: bool = False
    recordings: int = 0
    longer: Counter[str | None] = field(default_factory=Counter)
    """By rule, recordings that are kept longer now; of a dry run, that would be."""
    versions: int = 0
    """How many versions were given a longer lock."""
    shorter: Counter[str | None] = field(default_factory=Counter)
    """By rule, recordings for which the policy is shorter than what was promised: they stay as they are."""
    refused: list[str] = field(default_factory=list)
    """What the store said where it would not extend a lock; the first thousand."""
    unreadable: list[str] = field(default_factory=list)
    """Sidecars that are none; the first thousand."""
    read: int = 0
    """Sidecars that had to be read."""


async def apply(services: Services, *, dry_run: bool = False) -> Applied:
    """Extend what today's policy, which has a mode, keeps longer; a dry run changes nothing. StoreError."""
    work = _Work(services, Applied(dry_run))
    for source in await sources(services):
        for day in await days(services, source):
            await work.day(await read_day(services, source, day, indexed=True))
    return work.report


class _Work:
    def __init__(self, services: Services, report: Applied) -> None:
        self.report = report
        self._services = services
        self._yardstick = Yardstick(services.settings.retention)

    async def day(self, day: Day) -> None:
        """Do one day."""
        report = self.report
        report.recordings += len(day.rows)
        report.read += day.read + len(day.unreadable)
        report.unreadable += day.unreadable[: _TOLD - len(report.unreadable)]
        behind = {row.entry.rid: today for row in day.rows if (today := self._longer(row.entry))}
        if report.dry_run:
            report.longer.update(today.rule for today in behind.values())
            return
        extended = await self._extend(day, behind) if behind else {}
        if extended or day.read:
            rows = [Row(row.mark, extended.get(row.entry.rid, row.entry)) for row in day.rows]
            await write_rows(self._services, day.source, day.day, [*rows, *day.gone])

    def _longer(self, entry: Entry) -> Measured | None:
        """Return what the policy says where that is more than what was said before; count where it is less."""
        today = self._yardstick.measured(entry.source, entry.call, entry.archived_at)
        known = said_before(entry)
        if today is None or (known is not None and abs(today.until - known) <= SLACK):
            return None
        if known is not None and today.until < known:
            self.report.shorter[today.rule] += 1
            return None
        mode = self._yardstick.policy.mode
        return today if mode and Lock(mode, today.until).lasts(self._services.clock.now()) else None

    async def _extend(self, day: Day, behind: dict[str, Measured]) -> dict[str, Entry]:
        """Extend the locks of a day's recordings, and return those that are all done, with what their lock is now."""
        keys, mode = self._services.keys, self._yardstick.policy.mode
        assert mode  # noqa: S101 - without one, nothing is kept longer by it
        entries = {row.entry.rid: row.entry for row in day.rows if row.entry.rid in behind}
        versions = await self._versions(day)

        async def one(rid: str) -> Entry | None:
            entry, today = entries[rid], behind[rid]
            lock = Lock(mode, today.until)
            done = [
                await self._locked(version, lock)
                for key in (entry.sidecar_key(keys), entry.media_key)
                for version in versions.get(key, [])
            ]
            if not all(done):
                return None
            self.report.longer[today.rule] += 1
            return replace(entry, locked=today.until)

        made = await abreast(one, entries)
        return {entry.rid: entry for entry in made if entry is not None}

    async def _versions(self, day: Day) -> dict[str, list[Version]]:
        found: dict[str, list[Version]] = {}
        prefix = self._services.keys.partition("recordings", day.source, day.day)
        async for version in self._services.store.versions(prefix):
            if not version.marker:
                found.setdefault(version.key, []).append(version)
        return found

    async def _locked(self, version: Version, lock: Lock) -> bool:
        """Have a version locked so long; False where the store refuses, which is told."""
        store, key, version_id = self._services.store, version.key, version.version_id
        try:
            standing = (await store.protection(key, version_id)).lock
            if standing is None or standing.until < lock.until:
                await store.extend_lock(key, version_id, lock)
                self.report.versions += 1
        except ObjectMissing:  # destroyed since it was listed
            return True
        except StoreRefused as error:
            if len(self.report.refused) < _TOLD:
                self.report.refused.append(error.message)
            return False
        return True
