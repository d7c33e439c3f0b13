"""A workbench for the worker: a scripted phone system without HTTP, a memory store, local state, a clock in hand."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from pydantic import SecretStr

from config.retention import Retention
from config.settings import Archive, Runtime, Settings, Source, VendorOptions
from storage.keys import Keys, rid, utc_date
from storage.memory import MemoryStore
from storage.sidecar import CallFacts, Direction, GapRecord, Sidecar
from storage.state import State
from storage.state_local import LocalState
from tests.support.audio import wav
from tests.support.clock import FakeClock
from worker.limits import Gate
from worker.model import Page, Recording, Window
from worker.rest.client import RestClient
from worker.runtime import Desk, Services, make_services
from worker.vendor import VendorInfo

NOW = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)


class FakeOptions(VendorOptions):
    password: SecretStr = SecretStr("canary-secret")
    on_hash_mismatch: str = "quarantine"


@dataclass
class FakeStream:
    """A body without a network."""

    body: bytes
    declared_length: int | None = None
    content_type: str = "audio/wav"
    framed: bool = True
    compressed: bool = False
    fails_after: int | None = None
    error: Exception | None = None
    closed: int = 0

    async def peek(self) -> bytes:
        return self.body[:512]

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), 4096):
            if self.fails_after is not None and start >= self.fails_after and self.error:
                raise self.error
            yield self.body[start : start + 4096]
        if self.error and self.fails_after is None:
            raise self.error

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class FakeVendor:
    """Lists `recordings` and serves `bodies`; `script[id]` is a list of what each opening does instead."""

    info: ClassVar[VendorInfo] = VendorInfo(
        "fake", "Fake", FakeOptions, needs_timezone=False, max_window=timedelta(days=3650)
    )
    recordings: list[Recording] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    script: dict[str, list[Any]] = field(default_factory=dict)
    listing: list[Any] = field(default_factory=list)
    unreadable: tuple[Any, ...] = ()
    pages: list[Exception] = field(default_factory=list)
    """With which error a second page is refused; there is one only where this holds one."""
    opened: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    describes: Callable[[Recording], Recording] | None = None

    async def list_page(self, window: Window, cursor: str | None) -> Page:
        self.windows.append(window)
        if self.listing:
            turn = self.listing.pop(0)
            if isinstance(turn, Exception):
                raise turn
        if cursor is not None:
            raise self.pages.pop(0)
        return Page(tuple(self.recordings), "2" if self.pages else None, self.unreadable)

    async def describe(self, recording: Recording) -> Recording:
        return self.describes(recording) if self.describes else recording

    async def open_media(self, recording: Recording) -> Any:
        self.opened.append(recording.id)
        turns = self.script.get(recording.id, [])
        turn = turns.pop(0) if turns else None
        if callable(turn):
            turn = await turn()
        if isinstance(turn, BaseException):
            raise turn
        return turn or FakeStream(self.bodies[recording.id])

    def add(self, number: int, minutes_ago: float = 60, body: bytes | None = None, **more: Any) -> Recording:
        """Add a finished recording of ten seconds that started so many minutes before NOW."""
        start = NOW - timedelta(minutes=minutes_ago)
        name = more.pop("id", f"rec-{number}")
        call = CallFacts(
            started_at=start,
            ended_at=start + timedelta(seconds=10),
            duration_seconds=10.0,
            direction=Direction.INBOUND,
            from_="5550100",
            to="1001",
        )
        recording = Recording(id=name, call=call, record={"id": name, "n": number}, **more)
        self.recordings.append(recording)
        self.bodies[name] = wav(0.2, seed=number) if body is None else body
        return recording


@dataclass
class Bench:
    """Everything a worker test needs, and how to look at what came out."""

    services: Services
    desk: Desk
    vendor: FakeVendor
    store: MemoryStore
    clock: FakeClock

    @property
    def source(self) -> Source:
        return self.desk.source

    @property
    def keys(self) -> Keys:
        return self.services.keys

    def change(self, **fields: Any) -> None:
        """Replace settings of the source."""
        source = self.source.model_copy(update=fields)
        settings = self.services.settings.model_copy(update={"sources": (source,)})
        self.services.settings = settings
        self.desk = replace(self.desk, source=source)
        self.services._desks[source.name] = self.desk

    async def everything(self) -> list[str]:
        return [found.key async for found in self.store.objects("")]

    async def sidecar(self, recording: Recording) -> Sidecar:
        key = self.keys.sidecar("hq", utc_date(recording.started_at), rid(recording.id))
        return Sidecar.model_validate_json(await self.store.get(key, max_bytes=10**7))

    async def gap(self, recording: Recording) -> GapRecord:
        key = self.keys.gap("hq", utc_date(recording.started_at), rid(recording.id))
        return GapRecord.model_validate_json(await self.store.get(key, max_bytes=10**7))


def make_bench(
    folder: Path,
    *,
    state: State | None = None,
    store: MemoryStore | None = None,
    retention: Retention | None = None,
    **runtime: Any,
) -> Bench:
    """Set the bench up, one source called hq."""
    clock = FakeClock(NOW)
    source = Source(name="hq", vendor="fake", url="http://127.0.0.1:9", options=FakeOptions())
    settings = Settings(
        archive=Archive(bucket="calls"),
        runtime=Runtime(state_dir=folder, **runtime),
        retention=retention or Retention(),
        sources=(source,),
    )
    store = store or MemoryStore(clock=clock)
    services = make_services(settings, clock, store, state or LocalState(folder, "test", clock))
    gate = Gate(source, services.state, clock)
    vendor = FakeVendor()
    desk = Desk(source, gate, RestClient(source, gate, clock, state_dir=folder), vendor)  # type: ignore[arg-type]
    services._desks[source.name] = desk
    return Bench(services, desk, vendor, store, clock)
