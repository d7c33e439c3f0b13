"""A matter: the legal hold that a dispute puts on recordings, as the object in the bucket says it. Pure.

Its key is `v1/holds/{name}.json`; released, it is written again, so that the bucket's versions are its history.
"""

import re
from typing import Annotated, Literal

from pydantic import Field

from storage.retention import fits
from storage.sidecar import CallFacts, Model, UtcTime

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
"""What a matter may be called: it is a part of a key."""


class Scope(Model):
    """Which recordings: those named, or all calls that everything else given here matches."""

    recordings: tuple[str, ...] = ()
    """Each as `SOURCE/ID`, the id as the phone system writes it; nothing else is given beside these."""
    source: str | None = None
    from_: UtcTime | None = Field(default=None, alias="from")
    """Calls that started then or later; `to` is the end, not included."""
    to: UtcTime | None = None
    number: str | None = None
    """Shell-style patterns, as in `[[retention.rules]]`; `number` is that of either party."""
    agent: str | None = None
    queue: str | None = None

    def covers(self, source: str, recording_id: str, call: CallFacts) -> bool:
        """Tell whether a recording is meant. A call whose start is not known is in every span."""
        if self.recordings:
            return f"{source}/{recording_id}" in self.recordings
        begins = call.started_at
        if begins is not None and (
            (self.from_ is not None and begins < self.from_) or (self.to is not None and begins >= self.to)
        ):
            return False
        patterns = {"source": self.source, "number": self.number, "agent": self.agent, "queue": self.queue}
        return fits({name: pattern for name, pattern in patterns.items() if pattern is not None}, source, call)


class Step(Model):
    """One act: when, by whom and why."""

    at: UtcTime
    by: str
    reason: str


class Hold(Model):
    """A matter. It holds until it is released."""

    schema_: Literal["callvault/hold/v1"] = Field(default="callvault/hold/v1", alias="schema")
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    scope: Scope
    placed: Step
    released: Step | None = None

    @property
    def active(self) -> bool:
        """Whether it still holds."""
        return self.released is None
