"""How far a matter has been carried through the archive: a derived object, which is made again when it is gone. Pure.

Its key is `v1/index/holds/{name}.json`. Nothing is decided by it but whether there is work left and where to go on.
"""

from datetime import date
from typing import Literal

from pydantic import Field

from storage.sidecar import Model, UtcTime


class Place(Model):
    """The last recording that is done: everything before it, by source, day and rid, is done too."""

    source: str
    day: date
    rid: str | None = None
    """None where the whole day is done."""

    def after(self, source: str, day: date) -> str | None:
        """Return after which recording of a day to go on, "" for its first; None where nothing of it is left."""
        if (source, day) == (self.source, self.day):
            return self.rid
        return "" if (source, day) > (self.source, self.day) else None


class Swept(Model):
    """One way through the archive, of one matter in one state: placed or released."""

    schema_: Literal["callvault/swept/v1"] = Field(default="callvault/swept/v1", alias="schema")
    name: str
    of: Literal["placed", "released"]
    began_at: UtcTime
    at: UtcTime
    done: bool = False
    look: Literal[1, 2] = 1
    """The first goes through everything, the second through what was written while workers may not have known."""
    place: Place | None = None
    days: int = 0
    """Days of sources of this look that are done, of `of_days`."""
    of_days: int = 0
    recordings: int = 0
    """Recordings in the matter's scope, and gaps on record that have evidence or a record only."""
    held: int = 0
    """Versions whose legal hold was set."""
    freed: int = 0
    """Versions whose legal hold was lifted."""
    right: int = 0
    """Versions that were as they should be."""
    failed: int = 0
    failures: tuple[str, ...] = ()
    """The first of them, each a sentence."""
