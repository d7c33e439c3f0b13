"""The audit of one day: which versions there are, what each is to carry, and what does not fit together.

Also writes the day's index, for plans: `worker.indexing`.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial

from storage.day_index import Mark, Row
from storage.entry import Entry
from storage.errors import ObjectMissing
from storage.lock import Lock
from storage.retention import Yardstick, record_lock
from storage.sidecar import CallFacts
from storage.store import Version
from worker.abreast import abreast
from worker.drift import Audited, Expected, Kind, compare
from worker.entries import tried
from worker.gaps import read_gap
from worker.indexing import known_rows, write_rows
from worker.runtime import Services

_UNFINISHED = timedelta(days=1)  # media whose sidecar may yet come
_NEAR = timedelta(days=1)  # how far apart the store's clock, by which records are dated here, and ours may be
_AT_ONCE = 8  # recordings, of two or more versions each

Versions = dict[str, list[Version]]
Call = tuple[str, str, CallFacts]
"""Source, recording id, and what is known of the call."""


class Auditor:
    """Looks at one day after the other, and adds to one report."""

    def __init__(self, services: Services, report: Audited) -> None:
        self._services = services
        self._report = report
        self._policy = services.settings.retention
        self._yardstick = Yardstick(self._policy)

    async def records(self, prefix: str) -> None:
        """Look at what is put on record about recordings: its locks, version by version."""
        found, _ = await self._versions(prefix)
        await self._compare((version, self._on_record(version)) for rows in found.values() for version in rows)

    async def gaps(self, prefix: str) -> None:
        """Look at the gap records of a day: matters are about them, too."""
        found, hidden = await self._versions(prefix)
        pairs = []
        readable = [key for key in found if key not in hidden]
        records = dict(zip(readable, await abreast(partial(read_gap, self._services), readable), strict=True))
        for key, rows in found.items():
            gap = records.get(key)
            if gap is None and key not in hidden:
                self._tell(Kind.UNREADABLE, rows[0], "it is no gap record that can be read; compare its versions")
            about = (gap.source, gap.recording_id, gap.call) if gap else None
            pairs += [(version, self._as_its_call(about, version)) for version in rows]
        await self._compare(pairs)

    async def quarantine(self, source: str, day: date) -> None:
        """Look at the evidence of a day; its gap record or its sidecar says whose it is, and so what it is to carry."""
        keys = self._services.keys
        found, _ = await self._versions(keys.partition("quarantine", source, day))
        owners = {key: parsed.rid.rpartition(".")[0] for key in found if (parsed := keys.parse(key))}
        rids = sorted({*owners.values()})
        calls = dict(zip(rids, await abreast(partial(self._call, source, day), rids), strict=True))
        await self._compare(
            (version, self._as_its_call(calls.get(owners.get(key, "")), version))
            for key, rows in found.items()
            for version in rows
        )

    async def _call(self, source: str, day: date, rid: str) -> Call | None:
        if gap := await read_gap(self._services, self._services.keys.gap(source, day, rid)):
            return gap.source, gap.recording_id, gap.call
        entry = await tried(self._services, source, day, rid)
        return (entry.source, entry.recording_id, entry.call) if isinstance(entry, Entry) else None

    async def recordings(self, source: str, day: date) -> None:
        """Look at the recordings of a day, and write its index anew where that differs."""
        found, hidden = await self._versions(self._services.keys.partition("recordings", source, day))
        sidecars, media = self._sorted(found)
        known = await known_rows(self._services, source, day)

        async def one(rid: str) -> Row | None:
            if sidecars[rid][0].key in hidden:
                return None
            entry = await tried(self._services, source, day, rid)
            if isinstance(entry, Entry):
                entry = await self._recording(entry, sidecars[rid], media.get(rid, []))
                return Row(Mark.of(sidecars[rid][0]), entry)
            if not isinstance(entry, ObjectMissing):  # destroyed since it was listed
                detail = f"it is no sidecar of this key that can be read ({type(entry).__name__})"
                self._tell(Kind.UNREADABLE, sidecars[rid][0], detail)
            return None

        rows = {row.entry.rid: row for row in await abreast(one, sidecars, _AT_ONCE) if row}
        self._orphans({rid: versions for rid, versions in media.items() if rid not in sidecars})
        gone = [row for rid, row in known.items() if rid not in sidecars]
        for row in gone:
            if not await self._destroyed(row.entry):
                rows[row.entry.rid] = row  # told again, until somebody knows
        if rows != known:
            await write_rows(self._services, source, day, rows.values())

    async def _recording(self, entry: Entry, sidecars: list[Version], media: list[Version]) -> Entry:
        """Look at one recording; return it with the longest lock that it has now."""
        described = [version for version in media if version.key == entry.media_key]
        self._orphans({entry.rid: [version for version in media if version.key != entry.media_key]})
        if not described and not await self._elsewhere(entry):
            self._tell(
                Kind.NO_MEDIA,
                sidecars[0],
                f"it describes {entry.media_key}, which is not there: find out who deleted it",
            )
        for version in described:
            if version.bytes != entry.media_bytes:
                self._tell(
                    Kind.OTHER_BYTES,
                    version,
                    f"it has {version.bytes} bytes, its sidecar says {entry.media_bytes}: find out who wrote it",
                )
        for version in sidecars[:-1]:
            self._tell(
                Kind.EXTRA_VERSION,
                version,
                f"a sidecar is written once, and this one has {len(sidecars)} versions: compare them, the oldest is"
                " callvault's",
            )
        expected = self._expected(entry)
        locked = await self._compare((version, expected) for version in (*sidecars, *described))
        return replace(entry, locked=max((until for until in locked if until), default=None))

    def _expected(self, entry: Entry) -> Expected:
        """Return what media and sidecar are to carry; nothing, where neither promise nor policy has a mode."""
        promise = Lock(entry.lock_mode, entry.promised) if entry.lock_mode and entry.promised else None
        kept = self._yardstick.kept(replace(entry, locked=None))
        mode = promise.mode if promise else self._policy.mode
        lock = Lock(mode, kept.until) if mode and kept else None
        return Expected(lock, promise, (entry.source, entry.recording_id, entry.call))

    def _as_its_call(self, about: Call | None, version: Version) -> Expected:
        """Return what a gap record or evidence is to carry: as long as its call is kept, since more would outlast it.

        Nothing, where nobody knows which call it was.
        """
        if about is None:
            return Expected(None)
        source, _, call = about
        found = self._yardstick.measured(source, call, version.modified - _NEAR)
        lock = Lock(self._policy.mode, found.until) if found and self._policy.mode else None
        return Expected(lock, matters=about)

    def _on_record(self, version: Version) -> Expected:
        """Return what a record is to carry: what it was written with, or would be by a policy that is longer now."""
        lock = record_lock(self._policy, version.modified - _NEAR)
        return Expected(lock)

    async def _compare(self, pairs: Iterable[tuple[Version, Expected]]) -> list[datetime | None]:
        async def one(pair: tuple[Version, Expected]) -> datetime | None:
            return await compare(self._services, self._report, *pair)

        return await abreast(one, pairs)

    async def _versions(self, prefix: str) -> tuple[Versions, set[str]]:
        """Return the versions below a prefix by their keys, newest first, and which keys a delete marker hides."""
        found: Versions = {}
        hidden = set()
        async for version in self._services.store.versions(prefix):
            if not version.marker:
                found.setdefault(version.key, []).append(version)
            elif version.latest:
                hidden.add(version.key)
        hidden &= found.keys()  # else there is nothing left to hide
        for key in sorted(hidden):
            self._tell(
                Kind.HIDDEN,
                found[key][0],
                "a delete marker hides it, so that it looks deleted and is not; find out who deleted it without naming"
                " a version, and remove the marker by its version id",
            )
        self._report.objects += len(found)
        self._report.versions += sum(map(len, found.values()))
        return found, hidden

    def _sorted(self, found: Versions) -> tuple[Versions, Versions]:
        """Return the versions of sidecars, and those of media, by `rid`; what is of another layout is told."""
        sidecars: Versions = {}
        media: Versions = {}
        for key, rows in found.items():
            parsed = self._services.keys.parse(key)
            if parsed is None:
                self._tell(Kind.FOREIGN, rows[0], "callvault writes no such key: find out who did, and take it away")
            else:
                (sidecars if parsed.ext == "json" else media).setdefault(parsed.rid, []).extend(rows)
        return sidecars, media

    def _orphans(self, media: Versions) -> None:
        """Tell of media that no sidecar describes, unless one may yet come."""
        for rows in media.values():
            for version in rows:
                if version.modified < self._services.clock.now() - _UNFINISHED:
                    self._tell(
                        Kind.NO_SIDECAR,
                        version,
                        "no sidecar describes it: a run that was cut short and never taken up, or somebody deleted the"
                        " sidecar; archive its day again with --from and --to",
                    )

    async def _elsewhere(self, entry: Entry) -> bool:
        """Tell whether media that are not in the sidecar's own folder are where it says."""
        here = self._services.keys.partition("recordings", entry.source, entry.day)
        return not entry.media_key.startswith(here) and await self._services.store.head(entry.media_key) is not None

    async def _destroyed(self, entry: Entry) -> bool:
        """Tell whether there is a note of the destruction of what is gone; where there is none, that is told."""
        note = self._services.keys.destroyed(entry.source, entry.day, entry.rid)
        if await self._services.store.head(note) is not None:
            return True
        key = entry.sidecar_key(self._services.keys)
        self._report.report(
            Kind.GONE,
            key,
            None,
            f"{entry.source}/{entry.recording_id} was here at the last audit and is gone, and no certificate says why:"
            " find out who deleted it",
        )
        return False

    def _tell(self, kind: Kind, version: Version, detail: str) -> None:
        self._report.report(kind, version.key, version.version_id, detail)
