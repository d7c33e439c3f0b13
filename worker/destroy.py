"""One batch of destruction: its certificate, the deletions, and what became of each recording.

The order is the proof. The certificate says what is to be deleted before anything is; for each recording the matters
and the store are asked once more, a note keeps polls from archiving it again, then its versions go, the sidecar first.
At the end the bucket is listed, the indexes of the days forget what is gone, and the certificate is completed by what
is there: it claims nothing else. Killed in between, the certificate stays begun, and `finish` goes on with it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from config import VERSION
from config.events import Event
from config.logs import get_logger
from storage.certificate import Cause, Certificate, DoomedRecording, DoomedVersion, Fate, Part
from storage.entry import Entry
from storage.errors import ObjectMissing, VersionLocked
from storage.retention import kept
from storage.sidecar import CallFacts, utc_text
from worker.abreast import abreast
from worker.certificates import claim, new_key, read_certificate, write
from worker.due import Due, Surprise, explained, held_by, read_sidecar, standing_of, why
from worker.gaps import read_gap
from worker.indexing import drop_rows
from worker.runtime import Services

BATCH = 100
"""Recordings that one certificate is about at most."""

log = get_logger()


@dataclass(slots=True)
class Batch:
    """What became of a batch."""

    key: str
    certificate: Certificate
    waiting: list[str] = field(default_factory=list)
    """Recordings of which a part is gone, and the rest may not be deleted now: their certificate stays begun."""
    surprise: Surprise | None = None
    """Why the run must stop."""

    @property
    def destroyed(self) -> list[DoomedRecording]:
        """Return the recordings that are gone."""
        return [item for item in self.certificate.recordings if item.fate is Fate.DESTROYED]

    @property
    def kept(self) -> list[DoomedRecording]:
        """Return those of which nothing was deleted after all."""
        return [item for item in self.certificate.recordings if item.fate is Fate.KEPT]


async def destroy(services: Services, due: Sequence[Due], *, cause: Cause, by: str, reason: str | None = None) -> Batch:
    """Certify and destroy recordings that were judged a moment ago. StoreError, with the certificate left begun."""
    now, policy = services.clock.now(), services.settings.retention
    id_, key = new_key(services, now)
    certificate = Certificate(
        id=id_,
        cause=cause,
        reason=reason,
        by=by,
        program=f"callvault {VERSION}",
        policy=policy.version if policy.mode else None,
        begun_at=now,
        recordings=tuple(one.item for one in due),
    )
    await write(services, key, certificate, create_only=True)
    return await _Destruction(services, key, certificate).carry_out({n: one.entry for n, one in enumerate(due)})


async def finish(services: Services, key: str) -> Batch:
    """Go on with a certificate that was begun, whoever began it. Surprise, StoreError."""
    return await _Destruction(services, key, await read_certificate(services, key)).carry_out({})


class _Destruction:
    def __init__(self, services: Services, key: str, certificate: Certificate) -> None:
        self._services = services
        self._key = key
        self._certificate = certificate
        self._waiting: list[str] = []
        self._surprise: Surprise | None = None

    async def carry_out(self, entries: Mapping[int, Entry]) -> Batch:
        """Destroy what may be, complete the certificate, and tell. `entries` are those read a moment ago, by place."""

        async def one(row: tuple[int, DoomedRecording]) -> DoomedRecording:
            place, item = row
            gone: dict[tuple[str, str | None], datetime] = {}
            return await self._settled(item, gone, await self._tried(item, entries.get(place), gone))

        items = await abreast(one, enumerate(self._certificate.recordings))
        await self._forget(items)
        update: dict[str, object] = {"recordings": tuple(items)}
        if not self._waiting:
            update |= {"state": "complete", "completed_at": self._services.clock.now()}
        certificate = self._certificate.model_copy(update=update)
        if not self._waiting:
            await asyncio.shield(write(self._services, self._key, certificate, create_only=False))
        return Batch(self._key, certificate, self._waiting, self._surprise)

    async def _forget(self, items: Sequence[DoomedRecording]) -> None:
        """Take what is destroyed out of the indexes of its days, before the certificate says that nothing is left."""
        gone: dict[tuple[str, str], set[str]] = {}
        for item in items:
            if item.fate is Fate.DESTROYED:
                gone.setdefault((item.source, item.date), set()).add(item.rid)
        for (source, day), rids in gone.items():
            await drop_rows(self._services, source, date.fromisoformat(day), rids)

    async def _tried(
        self, item: DoomedRecording, entry: Entry | None, gone: dict[tuple[str, str | None], datetime]
    ) -> str | None:
        """Delete a recording unless something forbids it, and return what does."""
        if self._surprise is not None:
            return f"the run was stopped before it: {self._surprise}"
        try:
            if forbidden := await self._forbidden(item, entry):
                return forbidden
            if taken := await claim(self._services, item, self._key):
                return taken
            return await self._delete(item, entry, gone)
        except Surprise as surprise:
            self._stop(surprise)
            return surprise.message

    def _stop(self, surprise: Surprise) -> None:
        """Begin nothing more; of several that were met at once, the first is told."""
        self._surprise = self._surprise or surprise

    async def _forbidden(self, item: DoomedRecording, entry: Entry | None) -> str | None:
        """Ask everything anew: time has passed since it was judged, and after a death perhaps days."""
        services, now = self._services, self._services.clock.now()
        entry = entry or await self._entry(item)
        if entry is not None:
            until = kept(services.settings.retention, entry)
            if until is not None and until.until > now:
                return why(until)
            if until is None and self._certificate.cause is Cause.RETENTION:
                return "nothing says any more until when it is kept"
        return await self._kept_back(item, item.versions, entry)

    async def _kept_back(
        self, item: DoomedRecording, versions: Sequence[DoomedVersion], entry: Entry | None
    ) -> str | None:
        """Say by which matter or lock versions are kept, as of now."""
        call, whole = await self._call(item, entry)
        if held := await held_by(self._services, item.source, item.recording_id, call, whole=whole):
            return held.detail
        standing = await standing_of(self._services, versions)
        if standing.flagged:
            told = await explained(self._services, item.source, item.recording_id, call, standing, whole=whole)
            return told.detail
        if standing.lock is not None and standing.locked(self._services.clock.now()):
            return f"locked until {utc_text(standing.lock.until)}"
        return None

    async def _entry(self, item: DoomedRecording) -> Entry | None:
        """Return what its sidecar says; None where that is gone already, or never was."""
        if not any(version.part is Part.SIDECAR for version in item.versions):
            return None
        try:
            return (await read_sidecar(self._services, item.source, date.fromisoformat(item.date), item.rid))[0]
        except ObjectMissing:
            return None

    async def _call(self, item: DoomedRecording, entry: Entry | None) -> tuple[CallFacts, bool]:
        """Return which call it is, and whether that is all of it: a certificate has no more than the start, so that
        what lost its sidecar to a run that died may be what any matter about numbers, agents or queues means.
        """
        if entry is not None:
            return entry.call, True
        for version in item.versions:
            if version.part is Part.GAP and (gap := await read_gap(self._services, version.key)) is not None:
                return gap.call, True
        return CallFacts(started_at=item.started_at), False

    async def _delete(
        self, item: DoomedRecording, entry: Entry | None, gone: dict[tuple[str, str | None], datetime]
    ) -> str | None:
        store, name = self._services.store, f"{item.source}/{item.recording_id}"
        for version in item.versions:
            try:
                await store.delete_version(version.key, version.version_id)
            except VersionLocked as error:
                if kept_back := await self._kept_back(item, [version], entry):
                    return kept_back
                raise Surprise(
                    f"{name}: the store does not let {version.key} (version {version.version_id}) be deleted, and names"
                    f" no lock and no legal hold that stands ({error}); compare this machine's clock with the store's"
                ) from error
            gone[version.key, version.version_id] = self._services.clock.now()
        return None

    async def _settled(
        self, item: DoomedRecording, gone: Mapping[tuple[str, str | None], datetime], forbidden: str | None
    ) -> DoomedRecording:
        """Say what became of a recording, by what the bucket has of it now."""
        now, there = self._services.clock.now(), await self._there(item)
        versions = tuple(
            version
            if (version.key, version.version_id) in there
            else version.model_copy(update={"gone_at": gone.get((version.key, version.version_id), now)})
            for version in item.versions
        )
        times = [version.gone_at for version in versions if version.gone_at is not None]
        told: dict[str, object] = {"versions": versions}
        if not there:
            told |= {"fate": Fate.DESTROYED, "destroyed_at": max(times, default=now)}
            log.info(Event.RECORDING_DESTROYED, source=item.source, recording=item.recording_id, certificate=self._key)
        elif not times and forbidden:
            told |= {"fate": Fate.KEPT, "kept_because": forbidden}
        else:
            detail = forbidden or "the store said that it is deleted, and lists it still"
            self._waiting.append(f"{item.source}/{item.recording_id} is destroyed in part only: {detail}")
        return item.model_copy(update=told)

    async def _there(self, item: DoomedRecording) -> set[tuple[str, str | None]]:
        """Return which of its versions the bucket still lists."""
        wanted = {(version.key, version.version_id) for version in item.versions}
        there: set[tuple[str, str | None]] = set()
        for stem in sorted(
            {version.key.rpartition(".")[0] for version in item.versions}
        ):  # media's and sidecar's is one
            async for found in self._services.store.versions(f"{stem}."):
                there.add((found.key, found.version_id))
        return there & wanted
