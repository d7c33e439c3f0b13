"""The sidecar and the gap record: the JSON that says what an archived recording is, or why there is none.

Schema v1 is public; `storage/schema/*.json` is generated from these models and a test keeps them equal.
Writing and reading objects is `storage.store`; what they are called is `storage.keys`.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema


def utc_text(value: datetime) -> str:
    """Write an aware time as the sidecar does: UTC, `Z`, milliseconds or finer only where there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


UtcTime = Annotated[
    AwareDatetime,
    PlainSerializer(utc_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": "Z$"}, mode="serialization"),
]


_READABLE = 64 * 1024  # characters


class Direction(StrEnum):
    """Which way a call went, seen from the phone system."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    """What came of comparing our SHA-256 with the vendor's."""

    MATCH = "match"
    DIFFERS = "differs"
    ABSENT = "absent"
    UNRECOGNISED = "unrecognised"


class GapReason(StrEnum):
    """Why a finished recording could not be archived: a closed list."""

    HASH_MISMATCH = "hash_mismatch"
    NOT_AUDIO = "not_audio"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    MEDIA_MISSING = "media_missing"
    FORBIDDEN = "forbidden"
    VENDOR_ERROR = "vendor_error"
    FOREIGN_ORIGIN = "foreign_origin"
    CONFLICT = "conflict"
    GAVE_UP = "gave_up"
    CRASHED = "crashed"


class Model(BaseModel):
    """Base of what is written as JSON into the bucket: immutable, nothing unknown, every field written."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        json_schema_serialization_defaults_required=True,  # what is written has every field
    )


class CallFacts(Model):
    """What the phone system said of the call. `started_at` is null only in gap records of unreadable rows."""

    started_at: UtcTime | None
    ended_at: UtcTime | None = None
    duration_seconds: float | None = None
    direction: Direction = Direction.UNKNOWN
    from_: str | None = Field(default=None, alias="from")
    to: str | None = None
    agent: str | None = None
    queue: str | None = None
    call_id: str | None = None


class VendorHashFacts(Model):
    """The hash the vendor claimed, verbatim, and what came of comparing it."""

    verdict: Verdict
    algorithm: str | None = None
    value: str | None = None


class MediaFacts(Model):
    """The audio object."""

    key: str
    version_id: str | None
    content_type: str
    bytes: int
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    vendor_hash: VendorHashFacts
    warnings: tuple[str, ...] = ()


class RetentionFacts(Model):
    """Why it is kept until `archive.retain_until`: frozen when it was archived, whatever the policy says later."""

    rule: str | None
    """The rule's name; null where none matched and the policy's default holds."""
    keep: str
    counted_from: UtcTime
    policy: str
    """Which version of the policy: the first twelve hex digits of its hash."""


class ArchiveFacts(Model):
    """When and how it was archived, and how long it is kept.

    `lock_mode` is the lock that the media were seen to carry; null where there is none, also because the promise was
    over before anything was written.
    """

    archived_at: UtcTime
    archived_by: str
    retain_until: UtcTime | None = None
    lock_mode: str | None = None
    legal_hold: bool = False
    retention: RetentionFacts | None = Field(default=None, exclude_if=lambda facts: facts is None)
    """Left out where the configuration has no retention."""


class Sidecar(Model):
    """The commit: if it exists, the media exists and its bytes agree with it."""

    schema_: Literal["callvault/recording/v1"] = Field(default="callvault/recording/v1", alias="schema")
    source: str
    vendor: str
    recording_id: str
    call: CallFacts
    media: MediaFacts
    archive: ArchiveFacts
    vendor_record: dict[str, Any]


class GapRecord(Model):
    """A finished recording that could not be archived, and why."""

    schema_: Literal["callvault/gap/v1"] = Field(default="callvault/gap/v1", alias="schema")
    source: str
    vendor: str
    recording_id: str
    call: CallFacts
    reason: GapReason
    detail: str
    first_seen_at: UtcTime
    last_try_at: UtcTime
    tries: int
    vendor_record: dict[str, Any]


def canonical(model: Model) -> bytes:
    """Return the object's bytes: UTF-8 JSON in the order of the schema, newline at the end.

    Indented for people, but for records so large that nobody reads them: deep ones would grow a hundredfold.
    """
    text = model.model_dump_json(by_alias=True)
    return (model.model_dump_json(by_alias=True, indent=2) if len(text) < _READABLE else text).encode() + b"\n"
