"""A held recording as retention looks at it: the facts of its sidecar that rules, matters and dates are about. Pure."""

from dataclasses import dataclass
from datetime import date, datetime

from config.retention import LockMode
from storage.keys import Keys
from storage.sidecar import CallFacts, Sidecar


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording in the archive."""

    source: str
    day: date
    rid: str
    recording_id: str
    call: CallFacts
    media_key: str
    media_bytes: int
    sha256: str
    archived_at: datetime
    promised: datetime | None
    """Until when its sidecar says that it is kept; None where nothing was promised."""
    rule: str | None
    """The rule of that promise; None for the default."""
    lock_mode: LockMode | None = None
    """How its media were seen to be locked when it was archived; None where they were not."""
    locked: datetime | None = None
    """Until when its lock was last seen to stand, where that is known: it may have grown since the promise."""

    @classmethod
    def of(cls, sidecar: Sidecar, day: date, rid: str) -> "Entry":
        """Return what a sidecar that lies under this day and `rid` says. ValueError for a mode that there is not."""
        archive = sidecar.archive
        return cls(
            source=sidecar.source,
            day=day,
            rid=rid,
            recording_id=sidecar.recording_id,
            call=sidecar.call,
            media_key=sidecar.media.key,
            media_bytes=sidecar.media.bytes,
            sha256=sidecar.media.sha256,
            archived_at=archive.archived_at,
            promised=archive.retain_until,
            rule=archive.retention.rule if archive.retention else None,
            lock_mode=LockMode(archive.lock_mode) if archive.lock_mode else None,
        )

    def sidecar_key(self, keys: Keys) -> str:
        """Return where its sidecar is."""
        return keys.sidecar(self.source, self.day, self.rid)
