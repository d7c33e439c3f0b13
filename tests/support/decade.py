"""An archive that lives through years, and beside it a model of what was promised: which may never be broken.

The model keeps its own calendar and its own idea of who is covered by what, so that it shares no mistake with the
code. After each act, whatever is gone from the bucket is compared with it.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from config.retention import LockMode, Period, Retention, Rule
from storage.certificate import Fate as Doom
from storage.holds import Scope, Step
from storage.keys import utc_date
from tests.support.expiring import Archive
from worker.apply import apply
from worker.audit import audit
from worker.drift import Audited
from worker.erase import Answer, Outcome, erase
from worker.model import Recording
from worker.outcome import Fate
from worker.placing import place, release
from worker.sweep import sweep

FIGURES = (
    "archived",
    "destroyed",
    "erased at once",
    "erasures deferred",
    "erasures refused",
    "matters placed",
    "matters released",
    "policies",
    "audits",
    "extended",
)


@dataclass(frozen=True)
class Terms:
    """A policy as the model has it: for how long, in days or in years, by the queue of the call."""

    default: str
    queues: dict[str, str] = field(default_factory=dict)

    def policy(self) -> Retention:
        """Return it as the configuration has it."""
        rules = tuple(Rule(f"keep {queue}", {"queue": queue}, _period(keep)) for queue, keep in self.queues.items())
        return Retention(LockMode.GOVERNANCE, default=_period(self.default), expire=True, rules=rules)

    def end(self, recording: Recording) -> datetime:
        """Return until when a call is kept."""
        ended = recording.call.ended_at
        assert ended is not None
        keep = self.queues.get(recording.call.queue or "", self.default)
        number = int(keep[:-1])
        if keep.endswith("d"):
            return ended + timedelta(days=number)
        try:
            return ended.replace(year=ended.year + number)
        except ValueError:  # 29 February
            return ended.replace(year=ended.year + number, day=28)


def _period(keep: str) -> Period:
    number = int(keep[:-1])
    return Period(days=number) if keep.endswith("d") else Period(months=12 * number)


@dataclass
class Promised:
    """What the model knows of one recording."""

    recording: Recording
    until: datetime
    """The latest date that was ever promised for it."""
    gone: datetime | None = None
    certified: int = 0


class Broken(AssertionError):
    """The archive did what it had promised not to do, or did not what it had to."""


class World:
    """Years of one archive."""

    def __init__(self, folder: Path, terms: Terms) -> None:
        self.terms = terms
        self.archive = Archive(folder, terms.policy())
        self.known: dict[str, Promised] = {}
        self.matters: dict[str, Scope] = {}
        self.figures: dict[str, int] = dict.fromkeys(FIGURES, 0)
        self._number = 0

    @property
    def now(self) -> datetime:
        """Return the time."""
        return self.archive.clock.now()

    async def arrive(self, queue: str, number: str, *, days_late: float = 0) -> str:
        """Have a call recorded and archived."""
        self._number += 1
        vendor = self.archive.bench.vendor
        recording = vendor.add(self._number)
        ended = self.now - timedelta(days=days_late, minutes=5)
        call = recording.call.model_copy(
            update={"started_at": ended - timedelta(seconds=10), "ended_at": ended, "queue": queue, "from_": number}
        )
        vendor.recordings[-1] = recording = Recording(id=recording.id, call=call, record=recording.record)
        if (fate := await self.archive.archive(recording)) is not Fate.ARCHIVED:
            raise Broken(f"{recording.id} was not archived: {fate}")
        self.known[recording.id] = Promised(recording, self.terms.end(recording))
        self.figures["archived"] += 1
        return recording.id

    async def adopt(self, terms: Terms) -> None:
        """Have another policy from now on, for what comes."""
        self.terms = terms
        self.archive.policy(terms.policy())
        self.figures["policies"] += 1

    async def grow(self) -> None:
        """Bring the policy to what is in the archive."""
        done = await apply(self.archive.services)
        self.figures["extended"] += done.longer.total()
        self._promise_all()

    async def audit(self) -> Audited:
        """Look at everything, and put right what may be."""
        report = await audit(self.archive.services)
        self.figures["audits"] += 1
        self._promise_all()
        return report

    def _promise_all(self) -> None:
        for promised in self.known.values():
            if promised.gone is None:
                promised.until = max(promised.until, self.terms.end(promised.recording))

    async def place(self, name: str, scope: Scope) -> None:
        """Place a matter and carry it through."""
        await place(self.archive.services, name, scope, Step(at=self.now, by="counsel", reason="dispute"))
        self.matters[name] = scope
        await sweep(self.archive.services, name)
        self.figures["matters placed"] += 1

    async def release(self, name: str) -> None:
        """Release a matter."""
        del self.matters[name]
        await release(self.archive.services, name, Step(at=self.now, by="counsel", reason="settled"))
        await sweep(self.archive.services, name)
        self.figures["matters released"] += 1

    async def erase(self, recording_id: str) -> Answer:
        """Ask for an erasure; what is answered has to be what the model says."""
        promised = self.known[recording_id]
        answer = await erase(self.archive.services, "hq", recording_id, reason="asked for", by="officer")
        if promised.gone is not None:
            return answer
        if self.held_by(recording_id):
            expected = Outcome.REFUSED
        else:
            expected = Outcome.DEFERRED if self._ends(promised) > self.now else Outcome.ERASED
        if answer.outcome is not expected:
            raise Broken(f"{recording_id}: {answer.outcome} where it is {expected}: {answer.detail}")
        said = {Outcome.REFUSED: "erasures refused", Outcome.DEFERRED: "erasures deferred"}
        self.figures[said.get(answer.outcome, "erased at once")] += 1
        self.look()
        return answer

    async def expire(self, limit: int = 10_000) -> None:
        """Run expiry, and see that what was due is gone."""
        report = await self.archive.expire(limit)
        if report.stopped:
            raise Broken("; ".join(report.errors))
        self.look()
        if report.more:
            return
        for name in self.due():
            if not self.held_by(name):
                raise Broken(f"{name} stays past {self.known[name].until} without a reason")

    def due(self) -> list[str]:
        """Return whose time is over, held or not."""
        return [
            name for name, promised in self.known.items() if promised.gone is None and self._ends(promised) <= self.now
        ]

    def _ends(self, promised: Promised) -> datetime:
        """Return when a recording may go; what today's policy says counts, brought to the archive or not."""
        return max(promised.until, self.terms.end(promised.recording))

    def held_by(self, recording_id: str) -> list[str]:
        """Return which matters cover a recording."""
        return [name for name, scope in self.matters.items() if covered(scope, self.known[recording_id].recording)]

    def look(self) -> None:
        """Compare what is gone with what was promised. Broken."""
        store, now = self.archive.store, self.now
        for name, promised in self.known.items():
            if promised.gone is not None or self._stands(promised.recording):
                continue
            if now < promised.until:
                raise Broken(f"{name} was deleted at {now}, promised until {promised.until}")
            if held := self.held_by(name):
                raise Broken(f"{name} was deleted while held by {held}")
            promised.gone = now
            self.figures["destroyed"] += 1
            if (note := self.archive.note(promised.recording)) is None:
                raise Broken(f"{name} is gone without a note")
            if note.certificate not in store.versions_of:
                raise Broken(f"{name} is gone, and its certificate {note.certificate} is not there")

    def _stands(self, recording: Recording) -> bool:
        day, keys = utc_date(recording.started_at), self.archive.keys
        sidecar = keys.sidecar("hq", day, recording.id) in self.archive.store.versions_of
        media = keys.media("hq", day, recording.id, "wav") in self.archive.store.versions_of
        if sidecar is not media:
            raise Broken(f"of {recording.id} one half is left: sidecar {sidecar}, media {media}")
        return sidecar

    def close(self) -> None:
        """See that all certificates are complete and true, and together are what is gone. Broken."""
        told: dict[str, int] = {}
        for certificate in self.archive.certificates():
            if certificate.state != "complete":
                raise Broken(f"certificate {certificate.id} is {certificate.state}")
            for item in certificate.recordings:
                if item.fate is Doom.DESTROYED:
                    told[item.recording_id] = told.get(item.recording_id, 0) + 1
        gone = {name for name, promised in self.known.items() if promised.gone is not None}
        if told != dict.fromkeys(gone, 1):
            raise Broken(f"certificates and what is gone differ: {sorted(set(told) ^ gone)[:5]}")
        there = {name for name in self.known if name not in gone}
        if {name for name in there if not self._stands(self.known[name].recording)}:
            raise Broken("something is gone that nobody saw go")


def covered(scope: Scope, recording: Recording) -> bool:
    """Tell whether a matter is about a recording: named, or of the span and the queue."""
    if scope.recordings:
        return f"hq/{recording.id}" in scope.recordings
    start = recording.started_at
    assert start is not None
    inside = (scope.from_ is None or start >= scope.from_) and (scope.to is None or start < scope.to)
    return inside and scope.queue in (None, recording.call.queue) and scope.number in (None, recording.call.from_)


def midnight(day: date) -> datetime:
    """Return the beginning of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
