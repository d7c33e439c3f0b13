"""The composition root: settings in, working parts out. Opens and closes everything; the only one that does.

A `Desk` is what one source needs (gate, HTTP client, connector); `Services` is what all share.
"""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Self

from config.clock import Clock
from config.settings import Settings, Source
from storage.keys import Keys
from storage.state import State
from storage.store import ArchiveStore
from worker.limits import Gate
from worker.matters import Matters
from worker.rest.client import RestClient
from worker.vendor import Vendor
from worker.vendors import load_vendors


@dataclass(frozen=True, slots=True)
class Desk:
    """One source, ready to be spoken to by this process."""

    source: Source
    gate: Gate
    rest: RestClient
    vendor: Vendor


@dataclass
class Services:
    """Everything the work needs, for one event loop. An async context manager; leaving it closes all."""

    settings: Settings
    clock: Clock
    store: ArchiveStore
    state: State
    keys: Keys
    transfers: int
    """Recordings of one source on their way at once; each may buffer one part. A share of its own for each
    source that is worked on at the same time: one that hangs must not take the others'."""
    recording_seconds: float | None = None
    """How long one recording may take; None where nobody waits for the process."""
    matters: Matters = field(init=False)
    """The legal holds that are open."""
    _desks: dict[str, Desk] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.matters = Matters(self.store, self.keys, self.clock)

    def desk(self, source: Source) -> Desk:
        """Return the source's desk, opened on first use."""
        if source.name not in self._desks:
            vendor = load_vendors()[source.vendor]
            gate = Gate(source, self.state, self.clock, vendor.info.default_requests_per_second)
            rest = RestClient(source, gate, self.clock, state_dir=self.sessions_folder, cookies=vendor.info.cookies)
            self._desks[source.name] = Desk(source, gate, rest, vendor(rest, source))
        return self._desks[source.name]

    @property
    def sessions_folder(self) -> Path:
        """Return where session tokens are kept, in files of mode 0600."""
        return self.settings.runtime.state_dir / "sessions"

    def partition(self, kind: str, source: Source, day: date) -> str:
        """Return the key prefix of one day of a source."""
        return self.keys.partition(kind, source.name, day)

    async def aclose(self) -> None:
        """Close what was opened; state and store included."""
        for desk in self._desks.values():
            await desk.rest.aclose()
        self._desks.clear()
        await self.store.aclose()
        await self.state.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def make_services(
    settings: Settings,
    clock: Clock,
    store: ArchiveStore,
    state: State,
    sources_at_once: int = 1,
    recording_seconds: float | None = None,
) -> Services:
    """Put the parts together. Opens no connection; call it inside the event loop that will use them."""
    return Services(
        settings=settings,
        clock=clock,
        store=store,
        state=state,
        keys=Keys(settings.archive.prefix),
        transfers=max(1, settings.runtime.transfers // max(1, sources_at_once)),
        recording_seconds=recording_seconds,
    )
