"""The values that travel along the way of a recording. Pure: no I/O, no vendor, no queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from storage.sidecar import CallFacts


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span of call start times, `[start, end)`, in UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def widened(self, by: timedelta) -> "Window":
        """Return the window with `by` added at both ends, for vendors that filter by local time."""
        return Window(self.start - by, self.end + by)


class Readiness(StrEnum):
    """What the vendor's own state of a recording means for us."""

    READY = "ready"
    NOT_YET = "not_yet"  # still being recorded, saved or synchronised
    NEVER = "never"  # the vendor says it failed: a gap `vendor_error`


@dataclass(frozen=True, slots=True)
class ClaimedHash:
    """The hash a vendor gives for the media, verbatim."""

    algorithm: str
    value: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded call as a vendor listed it; `record` is the vendor's own record, verbatim, JSON-able.

    `media` is the vendor's own reference to the audio where the id is not enough; never a credential and
    never a link that expires. `call.started_at` is always set. `notes` become warnings in the sidecar.
    """

    id: str
    call: CallFacts
    record: dict[str, Any]
    readiness: Readiness = Readiness.READY
    vendor_state: str = ""
    media: str | None = None
    expected_bytes: int | None = None
    claimed_hash: ClaimedHash | None = None
    notes: tuple[str, ...] = ()

    @property
    def started_at(self) -> datetime:
        """Return the UTC start of the call."""
        started = self.call.started_at
        assert started is not None  # noqa: S101 - the constructor of every connector sets it
        return started

    def ended_by(self, now: datetime) -> datetime:
        """Return the call's end; its start where the end is unknown, or too far ahead to be believed."""
        ended = self.call.ended_at
        return ended if ended is not None and ended <= now + timedelta(days=1) else self.started_at

    def noting(self, *notes: str) -> "Recording":
        """Return the recording with further warnings."""
        return replace(self, notes=self.notes + notes)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form that `from_json` reads back."""
        return {
            "id": self.id,
            "call": self.call.model_dump(mode="json", by_alias=True),
            "record": self.record,
            "readiness": self.readiness.value,
            "vendor_state": self.vendor_state,
            "media": self.media,
            "expected_bytes": self.expected_bytes,
            "claimed_hash": [self.claimed_hash.algorithm, self.claimed_hash.value] if self.claimed_hash else None,
            "notes": list(self.notes),
        }

    @classmethod
    def kept(cls, data: object) -> "Recording | None":
        """Read what somebody kept of a recording; None where it is none, or an older version's."""
        shape = {"id": str, "record": dict, "vendor_state": str, "media": str | None, "expected_bytes": int | None}
        if not isinstance(data, dict) or not all(isinstance(data.get(name), kind) for name, kind in shape.items()):
            return None
        try:
            recording = cls.from_json(data)
        except (LookupError, TypeError, ValueError):
            return None
        return recording if recording.call.started_at else None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Recording":
        """Read what `to_json` wrote."""
        return cls(
            id=data["id"],
            call=CallFacts.model_validate(data["call"]),
            record=data["record"],
            readiness=Readiness(data["readiness"]),
            vendor_state=data["vendor_state"],
            media=data["media"],
            expected_bytes=data["expected_bytes"],
            claimed_hash=ClaimedHash(*data["claimed_hash"]) if data["claimed_hash"] else None,
            notes=tuple(data["notes"]),
        )


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row of a vendor's listing that could not be understood. With an id it becomes a gap `vendor_error`."""

    id: str | None
    detail: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing. `next` is an opaque cursor for the following page; None after the last one."""

    recordings: tuple[Recording, ...]
    next: str | None = None
    unreadable: tuple[Unreadable, ...] = field(default=())
    again: bool = False
    """Part of a deliberate second look at the same listing: holding nothing new is no sign of going in circles."""
    total: int | None = None
    """How many different recordings the listing announces, told with its last page."""
