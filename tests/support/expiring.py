"""An archive whose recordings come of age: a workbench with a policy of thirty days, and what is left."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from config.retention import LockMode, Period, Retention
from storage.certificate import Certificate, DestroyedNote, Erasure
from storage.holds import Hold, Scope, Step
from storage.keys import rid, utc_date
from storage.sidecar import canonical
from tests.support.bench import NOW, Bench, make_bench
from tests.support.clock import FakeClock
from tests.support.meddled import MeddledStore
from worker.certificates import write
from worker.expiry import Expired, expire
from worker.model import Recording
from worker.outcome import Fate
from worker.pipeline import archive_one

POLICY = Retention(LockMode.GOVERNANCE, default=Period(days=30), expire=True)
DAY = 24 * 3600.0


class Archive:
    """A bench, its meddled store, and a clock; recordings are archived now and are due thirty days later."""

    def __init__(self, folder: Path, retention: Retention = POLICY, **options: Any) -> None:
        self.clock = FakeClock(NOW)
        self.store = MeddledStore(**(options or {"object_lock": True}), clock=self.clock)
        self.bench: Bench = make_bench(folder, store=self.store, retention=retention)
        self.bench.services.clock = self.bench.clock = self.clock
        self.services = self.bench.services

    @property
    def keys(self) -> Any:
        return self.bench.keys

    def policy(self, retention: Retention) -> None:
        """Have another policy in force."""
        self.services.settings = self.services.settings.model_copy(update={"retention": retention})

    async def add(self, *numbers: int, days_ago: float = 0, **more: Any) -> list[Recording]:
        """Have recordings made and archived."""
        made = [self.bench.vendor.add(n, minutes_ago=60 + days_ago * 24 * 60, **more) for n in numbers]
        for recording in made:
            assert (await self.archive(recording)) is Fate.ARCHIVED
        return made

    async def archive(self, recording: Recording) -> Fate:
        """Archive one, and return what became of it."""
        return (await archive_one(self.services, self.bench.desk, recording, None)).fate

    def later(self, days: float) -> None:
        """Let days go by."""
        self.clock.advance(days * DAY)

    async def expire(self, limit: int = 10_000, **more: Any) -> Expired:
        """Run expiry."""
        return await expire(self.services, by="tester@test", limit=limit, **more)

    async def hold(self, name: str, *recordings: Recording, sweep: bool = True, **scope: Any) -> Hold:
        """Place a matter, over recordings or a scope, and set the legal holds of the recordings."""
        told = Scope(recordings=tuple(f"hq/{r.id}" for r in recordings), **scope)
        hold = Hold(name=name, scope=told, placed=Step(at=self.clock.now(), by="counsel", reason="dispute"))
        await write(self.services, self.keys.hold(name), hold, create_only=True)
        for recording in recordings if sweep else ():
            await self.flag(recording, on=True)
        return hold

    async def release(self, hold: Hold, *recordings: Recording) -> None:
        """Release a matter, and lift the legal holds of the recordings."""
        released = hold.model_copy(update={"released": Step(at=self.clock.now(), by="counsel", reason="settled")})
        await write(self.services, self.keys.hold(hold.name), released, create_only=False)
        for recording in recordings:
            await self.flag(recording, on=False)

    async def flag(self, recording: Recording, *, on: bool) -> None:
        """Set or lift the legal hold of media and sidecar."""
        for key in self.of(recording):
            for row in self.store.versions_of[key]:
                await self.store.set_legal_hold(key, row.version_id, on=on)

    def of(self, recording: Recording) -> list[str]:
        """Return the keys of everything there is of a recording but notes."""
        name = rid(recording.id)
        return sorted(
            key
            for key in self.store.versions_of
            if (parsed := self.keys.parse(key))
            and parsed.kind in ("recordings", "gaps", "quarantine")
            and name in (parsed.rid, parsed.rid.rpartition(".")[0])
        )

    def there(self, recording: Recording) -> bool:
        """Tell whether anything is left of a recording."""
        return bool(self.of(recording))

    def certificates(self) -> list[Certificate]:
        """Return the certificates as they stand."""
        return [
            Certificate.model_validate_json(rows[-1].body)
            for key, rows in self.store.versions_of.items()
            if key.startswith("v1/certificates/")
        ]

    def note(self, recording: Recording) -> DestroyedNote | None:
        """Return the note that a recording is destroyed."""
        rows = self.store.versions_of.get(
            self.keys.destroyed("hq", utc_date(recording.started_at), rid(recording.id)), []
        )
        return DestroyedNote.model_validate_json(rows[-1].body) if rows else None

    def erasure(self, recording: Recording) -> Erasure | None:
        """Return the request to erase a recording."""
        rows = self.store.versions_of.get(
            self.keys.erasure("hq", utc_date(recording.started_at), rid(recording.id)), []
        )
        return Erasure.model_validate_json(rows[-1].body) if rows else None

    def put_aside(self, key: str, body: bytes = b"?") -> None:
        """Write a version behind callvault's back."""
        from dataclasses import replace

        rows = self.store.versions_of.get(key, [])
        sample = rows[-1] if rows else next(iter(self.store.versions_of.values()))[-1]
        self.store.versions_of[key] = [*rows, replace(sample, body=body, version_id=f"x{len(rows)}", lock=None)]

    def hide(self, key: str) -> None:
        """Put a delete marker over a key, as whoever deletes it without naming a version."""
        from dataclasses import replace

        rows = self.store.versions_of[key]
        rows.append(replace(rows[-1], body=b"", version_id="marker", marker=True, lock=None))


def end_of(recording: Recording, days: int = 30) -> datetime:
    """Return until when a recording is kept that ended as the bench has it."""
    assert recording.call.ended_at
    return (recording.call.ended_at + timedelta(days=days)).astimezone(UTC)


def text(model: Any) -> str:
    """Return the JSON that is in the bucket."""
    return canonical(model).decode()
