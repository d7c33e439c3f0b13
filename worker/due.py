"""Whether a recording may be destroyed: by its promise, today's policy, its locks, and the matters. Nothing is deleted.

The sidecar is read and the store is asked about every version, each time: what an index or a cache says is never
enough to delete by. Whatever does not fit together is a `Surprise`, and somebody has to look at it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from storage.certificate import DoomedRecording, DoomedVersion, Part
from storage.entry import Entry
from storage.errors import IntegrityError, ObjectMissing
from storage.keys import rid as rid_of
from storage.lock import Lock
from storage.retention import Because, Kept, kept
from storage.sidecar import CallFacts, GapRecord, Sidecar, utc_text
from storage.store import Version
from worker.entries import MAX_SIDECAR
from worker.remains import Remains
from worker.runtime import Services


class Surprise(Exception):
    """The bucket has what it should not: no deletion goes on before somebody has looked. A sentence for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Due:
    """It may be destroyed: all that is to be deleted, as a certificate has it."""

    item: DoomedRecording
    entry: Entry


@dataclass(frozen=True, slots=True)
class Held:
    """A legal hold is on it."""

    matters: tuple[str, ...]
    detail: str


Verdict = Due | Held | Kept | None
"""None where there is nothing to destroy: no recording at all, or one that nobody promised an end."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What protects some versions, taken together."""

    lock: Lock | None
    """The longest of their locks, whether it stands or has passed."""
    flagged: tuple[str, ...]
    """Keys with a legal hold."""

    def locked(self, now: datetime) -> bool:
        """Tell whether a lock stands."""
        return self.lock is not None and self.lock.until > now


async def judge(services: Services, remains: Remains, *, asked: str | None = None) -> Verdict:
    """Say whether a recording is due, by its remains. Surprise.

    `asked` is its id where somebody asked for it to be erased: then what was never promised an end is due at once, and
    so is what lies there without a sidecar.
    """
    now = services.clock.now()
    if remains.of(Part.SIDECAR):
        read = await _read(services, remains)
    elif asked is not None and remains.versions:
        read = await _without_sidecar(services, remains, asked)
    else:
        return None
    if read is None:
        return None
    entry, sha256 = read
    until = kept(services.settings.retention, entry)
    if until is None and asked is None:
        return None
    if until is not None and until.until > now and asked is None:
        return until  # most are not, and then matters need not be asked
    if held := await held_by(services, entry.source, entry.recording_id, entry.call):
        return held
    if until is not None and until.until > now:
        return until
    versions = await _accounted(services, remains, entry, sha256)
    standing = await standing_of(services, versions)
    if standing.flagged:
        return await explained(services, entry.source, entry.recording_id, entry.call, standing)
    if standing.lock is not None:
        until = kept(services.settings.retention, replace(entry, locked=standing.lock.until))
        if until is not None and until.until > now:
            return until
    return Due(_doomed(entry, versions, until), entry)


async def held_by(
    services: Services, source: str, recording_id: str, call: CallFacts, *, whole: bool = True
) -> Held | None:
    """Return the matters that hold a recording, or that may where its call is not known `whole`; read anew."""
    names = await services.matters.holding(source, recording_id, call, fresh=True, whole=whole)
    if not names:
        return None
    return Held(tuple(names), f"held by {'matter' if len(names) == 1 else 'matters'} {', '.join(names)}")


async def explained(
    services: Services, source: str, recording_id: str, call: CallFacts, standing: Standing, *, whole: bool = True
) -> Held:
    """Return which matter set the legal hold that was met. Surprise where none did.

    It may be one that was released a moment ago: its holds are lifted one by one.
    """
    for hold in await services.matters.all():
        if hold.scope.covers(source, recording_id, call, whole=whole):
            told = "" if hold.active else ", which is released, and whose legal hold is still to be lifted"
            return Held((hold.name,), f"held by matter {hold.name}{told}")
    raise Surprise(
        f"{source}/{recording_id}: {standing.flagged[0]} is under a legal hold, and no matter says why; find out who"
        " set it, then place a matter over it with `callvault hold add`, or lift it by hand"
    )


async def standing_of(services: Services, versions: Sequence[DoomedVersion]) -> Standing:
    """Ask the store what protects versions; those that are gone are passed over."""
    locks, flagged = [], []
    for version in versions:
        try:
            found = await services.store.protection(version.key, version.version_id)
        except ObjectMissing:
            continue
        if found.lock is not None:
            locks.append(found.lock)
        if found.legal_hold:
            flagged.append(version.key)
    longest = max(locks, key=lambda lock: lock.until, default=None)
    return Standing(longest, tuple(flagged))


async def read_sidecar(services: Services, source: str, day: date, rid: str) -> tuple[Entry, str]:
    """Return what a sidecar says, and its own SHA-256. ObjectMissing; Surprise for what is no sidecar of this key."""
    key = services.keys.sidecar(source, day, rid)
    name = f"{source}/{rid} of {day}"
    try:
        body = await services.store.get(key, max_bytes=MAX_SIDECAR)
        sidecar = Sidecar.model_validate_json(body)
    except (ValueError, IntegrityError) as error:
        raise Surprise(
            f"{name}: {key} cannot be read as a sidecar ({type(error).__name__}), so that nobody knows how long it is"
            " to be kept; compare its versions, and put it right"
        ) from error
    if (sidecar.source, rid_of(sidecar.recording_id)) != (source, rid):
        raise Surprise(
            f"{name}: {key} describes {sidecar.source}/{sidecar.recording_id}, which is another recording; find out who"
            " wrote it"
        )
    return Entry.of(sidecar, day, rid), hashlib.sha256(body).hexdigest()


async def _read(services: Services, remains: Remains) -> tuple[Entry, str] | None:
    try:
        return await read_sidecar(services, remains.source, remains.day, remains.rid)
    except ObjectMissing:
        if remains.markers:
            raise _hidden(remains) from None
        return None  # destroyed since it was listed


async def _without_sidecar(services: Services, remains: Remains, recording_id: str) -> tuple[Entry, str]:
    """Return an entry made of the gap record, where there is one that can be read; else its time counts from when the
    last of it was written.
    """
    call, since = CallFacts(started_at=None), max(version.modified for _, version in remains.versions)
    if gaps := remains.of(Part.GAP):
        try:
            gap = GapRecord.model_validate_json(await services.store.get(gaps[0].key, max_bytes=MAX_SIDECAR))
        except (ValueError, IntegrityError, ObjectMissing):
            pass  # it goes, whatever it says; its lock tells how long it is kept
        else:
            call, since = gap.call, gap.first_seen_at
    return Entry(remains.source, remains.day, remains.rid, recording_id, call, "", 0, "", since, None, None), ""


async def _accounted(services: Services, remains: Remains, entry: Entry, sidecar: str) -> list[DoomedVersion]:
    """Return all versions with what is known of them. Surprise where there are others than there should be."""
    name = f"{entry.source}/{entry.recording_id}"
    if remains.markers:
        raise _hidden(remains)
    sidecars, media = remains.of(Part.SIDECAR), remains.of(Part.MEDIA)
    if sidecars:
        if not media and not remains.noted:
            raise Surprise(
                f"{name}: {entry.media_key} is gone, and its sidecar is there; somebody else deletes here: find out who"
            )
        strange = [v for v in media if (v.key, v.bytes) != (entry.media_key, entry.media_bytes)]
        strange += [v for v in sidecars if v.bytes != sidecars[0].bytes]
        if strange:
            raise Surprise(
                f"{name}: {strange[0].key} (version {strange[0].version_id}, {strange[0].bytes} bytes) is not what the"
                f" sidecar describes; find out who wrote it, and delete what does not belong there"
            )

    async def doomed(row: tuple[Part, Version]) -> DoomedVersion:
        part, version = row
        sha256 = {Part.SIDECAR: sidecar, Part.MEDIA: entry.sha256}.get(part) or None
        if sha256 is None or len(remains.of(part)) > 1:
            sha256 = await _hash(services, version.key) if version.latest else None
        return DoomedVersion(
            part=part, key=version.key, version_id=version.version_id, bytes=version.bytes, sha256=sha256
        )

    return [await doomed(row) for row in remains.versions]


async def _hash(services: Services, key: str) -> str | None:
    try:
        return await services.store.sha256(key)
    except ObjectMissing:
        return None


def _hidden(remains: Remains) -> Surprise:
    return Surprise(
        f"{remains.source}/{remains.rid} of {remains.day}: a delete marker hides {remains.markers[0]}, which looks"
        " deleted and is not; find out who deleted it without naming a version, and remove the marker by its version id"
    )


def _doomed(entry: Entry, versions: Iterable[DoomedVersion], until: Kept | None) -> DoomedRecording:
    archived = bool(entry.sha256)
    return DoomedRecording(
        source=entry.source,
        date=entry.day.isoformat(),
        rid=entry.rid,
        recording_id=entry.recording_id,
        started_at=entry.call.started_at,
        archived_at=entry.archived_at if archived else None,
        bytes=entry.media_bytes,
        sha256=entry.sha256 or None,
        kept_until=until.until if until else None,
        because=until.because if until else None,
        rule=until.rule if until else None,
        versions=tuple(versions),
    )


def why(until: Kept) -> str:
    """Say until when something is kept, and by what."""
    by = {
        Because.PROMISE: "as was promised when it was archived",
        Because.POLICY: "by the policy in force",
        Because.LOCK: "by the lock that stands on it",
    }[until.because]
    rule = "" if until.because is Because.LOCK else f", {_rule(until.rule)}"
    return f"kept until {utc_text(until.until)} {by}{rule}"


def _rule(name: str | None) -> str:
    return f'rule "{name}"' if name else "its default"
