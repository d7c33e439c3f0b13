"""A matter: the legal hold that a dispute puts on recordings, as the object in the bucket says it. Pure.

Its key is `v1/holds/{name}.json`; released, it is written again, so that the bucket's versions are its history.
"""

import re
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from storage.retention import fits
from storage.sidecar import CallFacts, Model, UtcTime

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
"""What a matter may be called: it is a part of a key."""

_RECORDING = re.compile(r"[a-z0-9-]{1,40}/.+", re.DOTALL)


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

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        """Refuse what nobody can have meant: one mistake here holds too little, or everything."""
        rest = (self.source, self.from_, self.to, self.number, self.agent, self.queue)
        if self.recordings and any(told is not None for told in rest):
            raise ValueError("recordings are named one by one: nothing else goes with them")
        if not self.recordings and all(told is None for told in rest):
            raise ValueError("it names nothing: to hold every recording, write source *")
        if wrong := [told for told in self.recordings if not _RECORDING.fullmatch(told)]:
            raise ValueError(f"{wrong[0]!r} is not SOURCE/ID, such as hq/1504261084.7")
        if "" in rest:
            raise ValueError("an empty pattern fits no call: write one such as desk* or leave it out")
        if self.from_ and self.to and self.from_ >= self.to:
            raise ValueError(f"from {self.from_.isoformat()} is not before to {self.to.isoformat()}")
        return self

    @cached_property
    def _named(self) -> frozenset[str]:
        return frozenset(self.recordings)

    def may_be_of(self, source: str) -> bool:
        """Tell whether calls of a source can be meant at all."""
        if self.recordings:
            return any(told.partition("/")[0] == source for told in self.recordings)
        return self.source is None or fnmatchcase(source, self.source)

    def covers(self, source: str, recording_id: str, call: CallFacts, *, whole: bool = True) -> bool:
        """Tell whether a recording is meant. A call whose start is not known is in every span.

        Not `whole`, no more is known of the call than its start, and whether it may be meant is told.
        """
        if self.recordings:
            return f"{source}/{recording_id}" in self._named
        begins = call.started_at
        if begins is not None and (
            (self.from_ is not None and begins < self.from_) or (self.to is not None and begins >= self.to)
        ):
            return False
        patterns = {"source": self.source}
        if whole:
            patterns |= {"number": self.number, "agent": self.agent, "queue": self.queue}
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
