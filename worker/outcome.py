"""What became of a recording, and of a pass over a source: values with names."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from storage.sidecar import GapReason


class Fate(StrEnum):
    """What became of one recording in this pass."""

    ARCHIVED = "archived"  # by us, now
    HELD = "held"  # it was there already
    PENDING = "pending"  # not ready, or to be tried again
    GAP = "gap"  # on record as a gap, now


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of one recording. `failed` tells a retry that is due from a recording that is just not ready.

    A pending one's `reason` is that of the gap it would become by now; None where it was not tried at all.
    """

    recording_id: str
    fate: Fate
    bytes: int = 0
    reason: GapReason | None = None
    detail: str = ""
    failed: bool = False


@dataclass(slots=True)
class Report:
    """A pass over one source, in numbers and sentences."""

    listed: int = 0
    archived: int = 0
    held: int = 0
    pending: int = 0
    gaps: int = 0
    gaps_on_record: int = 0
    bytes: int = 0
    errors: list[str] = field(default_factory=list)
    to_retry: int = 0
    """How many of the pending are failures to be tried again."""
    unusable: bool = False
    """The source could not be listed at all."""
    store_failed: bool = False
    """The bucket could not be used."""
    watermark: datetime | None = None

    def count(self, outcome: Outcome) -> None:
        """Add the fate of one recording."""
        match outcome.fate:
            case Fate.ARCHIVED:
                self.archived += 1
                self.bytes += outcome.bytes
            case Fate.HELD:
                self.held += 1
            case Fate.PENDING:
                self.pending += 1
                self.to_retry += outcome.failed
            case _:  # Fate.GAP
                self.gaps += 1
                self.gaps_on_record += 1

    def public(self) -> dict[str, Any]:
        """Return the form that `--json` prints."""
        names = ("listed", "archived", "held", "pending", "gaps", "gaps_on_record", "bytes", "errors")
        return {name: getattr(self, name) for name in names}
