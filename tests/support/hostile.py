"""Hostile rows for each phone system, and a source that answers with them without a network.

`VENDORS` says for each connector how a row is printed; `Hostile` stands in for its HTTP: every listing is one page
of the given rows, every recording is a small WAV. Which values are hostile is told by `VALUES`.
"""

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape, quoteattr
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from config.settings import Archive, Runtime, Settings, Source
from storage.memory import MemoryStore
from storage.state_local import LocalState
from tests.support.audio import wav
from tests.support.bench import FakeStream
from tests.support.catapult import SimulatedCatapult
from tests.support.clock import FakeClock
from tests.support.imagicle import SimulatedImagicle
from tests.support.simulator import Simulator
from tests.support.verba import SimulatedVerba
from tests.support.xivo import SimulatedXivo
from tests.support.yeastar import COLUMNS, SimulatedYeastar
from worker.limits import Slot
from worker.model import Recording, Window
from worker.rest.client import Purpose, Reply
from worker.runtime import Desk, Services, make_services
from worker.vendors import load_vendors

NOW = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
START = NOW - timedelta(hours=2)
WINDOW = Window(NOW - timedelta(hours=4), NOW)

Row = dict[str, Any]

_IDS = (
    "",
    " ",
    ".",
    "..",
    "../../etc/passwd",
    "a/b\\c",
    "what?x=1#y",
    "\x00",
    "a\nb\r\n",
    "\u202egpj.exe",
    "\ud800",
    "\udfff\ud800",
    "id\u00e9",
    "ide\u0301",
    "REC-1",
    "rec-1.",
    "rec-1 ",
    "rec-1\u00a0",
    "x" * 10_000,
    "~20" * 80,
    "x" * 140 + "~20" + "a" * 30,
    "x" * 140 + " " + "a" * 30,
    "v1/recordings/source=hq/",
    "rec-1.json",
    "-" * 3000,
    "[/bold]",
    "%00",
    "%2e%2e",
    "{}",
    "None",
    "\u2028",
    "\ufeffrec",
    "1" * 5000,
)
_TIMES = (
    "0000-01-01 00:00:00",
    "0001-01-01 00:00:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31 23:59:59",
    "9999-12-31T23:59:59-14:00",
    "10000-01-01T00:00:00Z",
    "2026-03-05T10:00:00+99:99",
    "2026-03-05T10:00:00-23:59:59.999999",
    "2026-02-30 10:00:00",
    "2026-03-29 02:30:00",
    "2026-03-05",
    "2026-03-05T10:00:00Z",
    "2026-03-05T10:00:00.1234567891234Z",
    "2026-W10-4T10:00:00",
    "\u0662\u0660\u0662\u0666-03-05 10:00:00",
    "2026-03-05T10:00:60Z",
    "PT-5S",
    "P99999D",
    "99999:99:99",
    "-00:00:12",
    "00:00:-12",
    "1e308",
    "NaN",
    "inf",
    "-1",
    "PT9999999999S",
)
VALUES: st.SearchStrategy[Any] = (
    st.sampled_from(_IDS)
    | st.sampled_from(_TIMES)
    | st.text(st.characters(), max_size=30)  # half surrogates included
    | st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**63, 10**400, -(10**400), 1e308, float("nan"), float("inf"), -float("inf"), 0.5])
    | st.sampled_from(
        [[], {}, [[[[]]]], {"SHA256": {"x": 1}}, {"SHA256": "0" * 64}, {"username": ["a"]}, ["a", None], {"": ""}]
    )
)


@dataclass(frozen=True)
class Print:
    """How one vendor prints: a good row, the fields worth spoiling, and a page of rows."""

    simulator: type[Simulator]
    good: Callable[[str, datetime], Row]
    identity: str
    fields: tuple[str, ...]
    page: Callable[[list[Any]], bytes]
    only_text: bool = False


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _text(value: Any) -> str:
    """Return what any value is where there is text alone: what UTF-8 cannot hold is spelled out."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _csv(rows: list[Row]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows([[_text(row.get(name, "")) for name in COLUMNS] for row in rows])
    return out.getvalue().encode()


def _xml(rows: list[Row]) -> bytes:
    def legal(value: Any) -> str:
        return "".join(c if c in "\t\n\r" or " " <= c < "\ufffe" or c > "\uffff" else "?" for c in _text(value))

    def printed(row: Row) -> str:
        cells = "".join(f"<{name}>{escape(legal(value))}</{name}>" for name, value in row.items() if name != "@state")
        return f"<verbacdr state={quoteattr(legal(row.get('@state', '1')))}>{cells}</verbacdr>"

    return f'<Response code="0"><verbacdrlist>{"".join(map(printed, rows))}</verbacdrlist></Response>'.encode()


def _local(moment: datetime, zone: str | None) -> str:
    return moment.astimezone(ZoneInfo(zone or "UTC")).strftime("%Y-%m-%d %H:%M:%S")


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


VENDORS = {
    "xivo": Print(
        SimulatedXivo,
        lambda name, at: {"id": name, "start": _local(at, SimulatedXivo.timezone), "duration": "00:00:12"},
        "id",
        ("id", "start", "duration", "src_num", "dst_num", "agent", "queue", "status", "direction", "attached_data"),
        lambda rows: _json({"hasNext": False, "records": rows}),
    ),
    "imagicle": Print(
        SimulatedImagicle,
        lambda name, at: {"id": name, "startTime": _iso(at), "duration": "PT12S", "direction": 1},
        "id",
        (
            "id",
            "startTime",
            "duration",
            "direction",
            "localPartyNumber",
            "ownerUsername",
            "owner",
            "size",
            "hash",
            "pbxInfo",
        ),
        lambda rows: _json({"totalCount": len(rows), "recordings": rows}),
    ),
    "catapult": Print(
        SimulatedCatapult,
        lambda name, at: {"id": name, "startTime": _iso(at), "endTime": _iso(at), "state": "complete", "media": "/m/1"},
        "id",
        ("id", "startTime", "endTime", "state", "media", "call"),
        _json,
    ),
    "yeastar": Print(
        SimulatedYeastar,
        lambda name, at: {"callid": "S1", "timestart": _local(at, SimulatedYeastar.timezone), "recording": name},
        "recording",
        ("callid", "timestart", "recording", "callfrom", "callto", "callduraction", "type"),
        _csv,
        only_text=True,
    ),
    "verba": Print(
        SimulatedVerba,
        lambda name, at: {"ccdr_id": name, "start_time": _local(at, SimulatedVerba.timezone), "duration": "00:00:12"},
        "ccdr_id",
        ("ccdr_id", "start_time", "end_time", "duration", "userdirection", "modality", "source_caller_id", "@state"),
        _xml,
        only_text=True,
    ),
}


class _Stream(FakeStream):
    """A body that takes over a slot, as those of `worker.rest.media` do."""

    _slot: Slot | None = None

    def adopt(self, slot: Slot) -> None:
        self._slot = slot

    async def aclose(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            await slot.release()


@dataclass
class Hostile:
    """One source of a vendor with everything around it, and what its listings hold."""

    services: Services
    desk: Desk
    store: MemoryStore
    rows: list[Any]
    print: Print

    @property
    def source(self) -> Source:
        return self.desk.source

    async def call(self, method: str, path: str, **asked: Any) -> Reply:
        """Answer what a connector asks, in place of `RestClient.call`."""
        vendor = self.source.vendor
        body: bytes
        if asked["purpose"] is Purpose.LOGIN:
            body = _json({"status": "Success", "token": "a-session-token"})
        elif path.endswith("get_random"):
            body = _json({"status": "Success", "random": "a-one-time-link"})
        elif vendor == "imagicle" and asked["purpose"] is Purpose.DETAIL:
            body = _json(self._detail(path))
        elif vendor == "catapult" and asked["purpose"] is Purpose.DETAIL:
            body = _json({"from": 1, "to": None, "direction": [], "id": {}})
        elif vendor == "verba" and asked.get("params", {}).get("pagefirst") not in (0, None):
            body = _xml([])
        else:
            body = self.print.page(self.rows)
        return Reply(200, {}, body, f"{self.source.url}{path}")

    def _detail(self, path: str) -> Any:
        named = [row for row in self.rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
        wanted = unquote(path.rsplit("/", 1)[1])
        return next((row for row in named if row["id"] == wanted), {"id": wanted})

    async def open_audio(self, method: str, path: str, **asked: Any) -> Any:
        """Serve every recording, in place of `RestClient.open_audio`."""
        return _Stream(wav(0.01))

    async def objects(self) -> dict[str, bytes]:
        return {found.key: self.store.versions_of[found.key][-1].body async for found in self.store.objects("")}

    async def listed(self) -> tuple[list[Recording], list[Any]]:
        """Return what the connector makes of the page: recordings that start in the window, and unreadable rows."""
        page = await self.desk.vendor.list_page(WINDOW, None)
        return [r for r in page.recordings if r.started_at in WINDOW], list(page.unreadable)


@contextmanager
def hostile(vendor: str, rows: list[Any]) -> Iterator[Hostile]:
    """Set up a source of that vendor whose listings hold these rows. For one event loop."""
    told, connector = VENDORS[vendor], load_vendors()[vendor]
    with tempfile.TemporaryDirectory() as folder:
        clock = FakeClock(NOW)
        simulator = told.simulator()
        settings = simulator.settings()
        source = Source(
            name="hq",
            vendor=vendor,
            url="http://127.0.0.1:9",
            timezone=ZoneInfo(simulator.timezone) if simulator.timezone else None,
            options=connector.info.options(**settings),
        )
        everything = Settings(
            archive=Archive(bucket="calls"), runtime=Runtime(state_dir=Path(folder)), sources=(source,)
        )
        store = MemoryStore(clock=clock)
        services = make_services(everything, clock, store, LocalState(Path(folder), "test", clock))
        desk = services.desk(source)
        found = Hostile(services, desk, store, rows, told)
        desk.rest.call = found.call  # type: ignore[method-assign]
        desk.rest.open_audio = found.open_audio  # type: ignore[method-assign]
        if vendor == "verba":
            desk.vendor._session = None  # type: ignore[attr-defined] # a key without login
        yield found
