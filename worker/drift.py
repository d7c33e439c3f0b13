"""One version of one object, beside what promise, policy and matters say of it: what is short is put right, what
may not be changed is told.

Locks are only extended and legal holds only set. What somebody shortened is extended again, and told all the same.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from config.events import Event
from config.logs import get_logger
from config.retention import LockMode
from storage.errors import ObjectMissing, StoreRefused
from storage.lock import Lock
from storage.sidecar import CallFacts, utc_text
from storage.store import Protection, Version
from worker.runtime import Services

SLACK = timedelta(hours=1)
"""What a lock may be short of: policies differ by whole days, and clocks by less than this."""
_TOLD = 1000  # findings that are told one by one; all are counted and logged

log = get_logger()


class Kind(StrEnum):
    """What an audit tells of, because it may not change it or because somebody has to know."""

    SHORTENED = "shortened"  # less than was promised when it was written; it was extended again where that could be
    WEAKER_MODE = "weaker_mode"  # governance where compliance was promised
    REFUSED = "refused"  # the store would not extend a lock or set a hold
    HOLD_WITHOUT_MATTER = "hold_without_matter"
    HIDDEN = "hidden"  # behind a delete marker
    NO_MEDIA = "no_media"  # a sidecar, and nothing that it describes
    NO_SIDECAR = "no_sidecar"  # media that nothing describes, older than a day
    OTHER_BYTES = "other_bytes"  # as many as the sidecar does not say
    EXTRA_VERSION = "extra_version"  # of a sidecar: it was written again
    UNREADABLE = "unreadable"
    FOREIGN = "foreign"  # not of this layout
    GONE = "gone"  # the last audit saw it, and no certificate says what became of it


@dataclass(slots=True)
class Audited:
    """An audit, in numbers, and what somebody has to look at."""

    objects: int = 0
    versions: int = 0
    well: int = 0
    """Versions that carried what they should."""
    extended: int = 0
    """Locks that were too short, and are no more."""
    held: int = 0
    """Legal holds that were missing, and are no more."""
    reported: dict[str, int] = field(default_factory=dict)
    """How many findings of each kind."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """The first thousand of them."""
    at: str = ""
    """The place that was looked at last."""
    done: bool = False

    def report(self, kind: Kind, key: str, version_id: str | None, detail: str) -> None:
        """Add a finding."""
        self.reported[kind.value] = self.reported.get(kind.value, 0) + 1
        told = {"kind": kind.value, "key": key, "version": version_id, "detail": detail}
        if len(self.findings) < _TOLD:
            self.findings.append(told)
        log.error(Event.AUDIT_FINDING, **told)

    def figures(self) -> dict[str, int]:
        """Return the numbers, for a line in the log."""
        names = ("objects", "versions", "well", "extended", "held")
        return {**{name: getattr(self, name) for name in names}, "reported": sum(self.reported.values())}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a version is to carry."""

    lock: Lock | None
    """By promise and by today's policy, whichever is longer."""
    promise: Lock | None = None
    """The part of it that the version was written with."""
    matters: tuple[str, str, CallFacts] | None = None
    """Source, id and call that matters are asked about; None for what no matter is about."""


async def compare(services: Services, report: Audited, version: Version, expected: Expected) -> datetime | None:
    """Compare one version with what it is to carry; return until when it is locked then, None where it is not.

    StoreUnavailable where the store does not answer; what it refuses is a finding.
    """
    try:
        return await _Look(services, report, version, expected).take()
    except ObjectMissing:  # destroyed since it was listed
        return None


class _Look:
    def __init__(self, services: Services, report: Audited, version: Version, expected: Expected) -> None:
        self._services = services
        self._report = report
        self._version = version
        self._expected = expected
        self._well = True

    async def take(self) -> datetime | None:
        version = self._version
        found = await self._services.store.protection(version.key, version.version_id)
        self._told_short(found.lock)
        locked = await self._extended(found.lock)
        if self._expected.matters:
            await self._hold(found, *self._expected.matters)
        self._report.well += self._well
        return locked

    def _told_short(self, lock: Lock | None) -> None:
        promise, now = self._expected.promise, self._services.clock.now()
        if promise is None or not promise.lasts(now):
            return
        if lock is None or lock.until < promise.until - SLACK:
            self._tell(
                Kind.SHORTENED, f"promised was {_said(promise)}, it had {_said(lock)}: find out who has that right"
            )
        if lock is not None and (lock.mode, promise.mode) == (LockMode.GOVERNANCE, LockMode.COMPLIANCE):
            self._tell(
                Kind.WEAKER_MODE,
                f"promised was {_said(promise)}, it has {_said(lock)}; whoever may bypass governance locks can make it"
                " compliance",
            )

    async def _extended(self, lock: Lock | None) -> datetime | None:
        until, wanted = lock.until if lock else None, self._expected.lock
        if wanted is None or not wanted.lasts(self._services.clock.now()):
            return until
        if until is not None and until >= wanted.until - SLACK:
            return until
        self._well = False
        try:
            made = await self._services.store.extend_lock(self._version.key, self._version.version_id, wanted)
        except StoreRefused as error:
            self._tell(Kind.REFUSED, error.message)
            return until
        self._report.extended += 1
        return made.until

    async def _hold(self, found: Protection, source: str, recording_id: str, call: CallFacts) -> None:
        matters, key, version_id = self._services.matters, self._version.key, self._version.version_id
        held = bool(await matters.holding(source, recording_id, call))
        if held is found.legal_hold:
            return
        if not held:
            if not await matters.holding(source, recording_id, call, fresh=True):
                self._tell(
                    Kind.HOLD_WITHOUT_MATTER,
                    f"{source}/{recording_id} is under a legal hold, and no matter says why; find out who set it, then"
                    " place a matter over it with `callvault hold add`, or lift it by hand",
                )
            return
        self._well = False
        try:
            await self._services.store.set_legal_hold(key, version_id, on=True)
            self._report.held += 1
            if not await matters.holding(source, recording_id, call, fresh=True):  # released while this was done
                await self._services.store.set_legal_hold(key, version_id, on=False)
        except StoreRefused as error:
            self._tell(Kind.REFUSED, error.message)

    def _tell(self, kind: Kind, detail: str) -> None:
        self._well = False
        self._report.report(kind, self._version.key, self._version.version_id, detail)


def _said(lock: Lock | None) -> str:
    return f"{lock.mode} until {utc_text(lock.until)}" if lock else "no lock"
