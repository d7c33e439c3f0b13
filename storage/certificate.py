"""What proves that a recording was destroyed, as the bucket keeps it: certificate, note and request to erase. Pure.

None of them says who spoke to whom: they outlive what they are about. Ids are those that the phone system made up.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from storage.retention import Because
from storage.sidecar import Model, UtcTime

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Part(StrEnum):
    """What of a recording an object is."""

    SIDECAR = "sidecar"
    MEDIA = "media"
    QUARANTINE = "quarantine"
    GAP = "gap"


class DoomedVersion(Model):
    """One version of one object that is to be deleted."""

    part: Part
    key: str
    version_id: str | None
    """Null in a bucket that keeps no versions."""
    bytes: int
    sha256: Sha256 | None
    """Null where it is not known: of a gap record that was written again, the earlier versions."""
    gone_at: UtcTime | None = None
    """When it was deleted, or, after an interruption, when the bucket was first seen not to have it any more."""


class Fate(StrEnum):
    """What became of a recording that was to be destroyed."""

    DESTROYED = "destroyed"
    """The bucket was asked, and has none of the versions any more."""
    KEPT = "kept"
    """Nothing of it was deleted: something forbade it in the last moment."""


class DoomedRecording(Model):
    """One recording that is to be destroyed, and what became of it."""

    source: str
    date: str
    """The day that is in its keys, as is `rid`."""
    rid: str
    recording_id: str
    started_at: UtcTime | None
    archived_at: UtcTime | None
    bytes: int
    """Of its media, as is `sha256`: 0 and null where it was never archived, so that there is a gap record at most."""
    sha256: Sha256 | None
    kept_until: UtcTime | None
    """Until when it was kept; null where nothing was ever promised, which only an erasure gets past."""
    because: Because | None
    """What kept it so long: its `promise`, today's `policy` or a `lock`."""
    rule: str | None
    """The rule of the promise or the policy; null for the default, and for a lock."""
    versions: tuple[DoomedVersion, ...]
    fate: Fate | None = None
    """Null while the batch is under way."""
    destroyed_at: UtcTime | None = None
    kept_because: str | None = None


class Cause(StrEnum):
    """Why a batch is destroyed."""

    RETENTION = "retention"
    """Its time is over."""
    ERASURE = "erasure"
    """Somebody asked for it."""


class Certificate(Model):
    """One batch of destruction: written before the first deletion, and again, `complete`, after the last."""

    schema_: Literal["callvault/certificate/v1"] = Field(default="callvault/certificate/v1", alias="schema")
    id: str
    state: Literal["begun", "complete"] = "begun"
    cause: Cause
    reason: str | None
    """What whoever asked for an erasure gave as the reason; null when time was over."""
    by: str
    """Who gave the command, and which program carried it out."""
    program: str
    policy: str | None
    """Which version of the policy decided; null where there is none."""
    begun_at: UtcTime
    completed_at: UtcTime | None = None
    recordings: tuple[DoomedRecording, ...]


class DestroyedNote(Model):
    """That a recording is destroyed, or about to be, and not to be archived again."""

    schema_: Literal["callvault/destroyed/v1"] = Field(default="callvault/destroyed/v1", alias="schema")
    source: str
    recording_id: str
    certificate: str
    """The key of the certificate that has the rest."""
    at: UtcTime


class Erasure(Model):
    """A request to erase one recording: deferred until it may be, then carried out by the expiry run."""

    schema_: Literal["callvault/erasure/v1"] = Field(default="callvault/erasure/v1", alias="schema")
    source: str
    date: str
    rid: str
    recording_id: str
    reason: str
    by: str
    asked_at: UtcTime
    state: Literal["deferred", "erased"]
    until: UtcTime | None
    """Until when it is kept, as far as is known; `because` and `rule` as in the certificate."""
    because: Because | None
    rule: str | None
    certificate: str | None = None
    """The key of the certificate, once there is one."""
