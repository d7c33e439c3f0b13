"""One connector with everything around it, for the vendor contract: simulator, clock, permits, HTTP client.

`VendorSite` holds the fixtures and what a vendor says of itself; the promises are in `vendor_contract` and the
modules it puts together.
"""

import base64
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from config.settings import Source
from tests.support.clock import FakeClock
from tests.support.permits import MemoryPermits
from tests.support.simulator import Call, Simulator
from worker.limits import Gate
from worker.model import Page, Readiness, Recording, Window
from worker.paging import listed
from worker.rest.client import RestClient
from worker.rest.connect import TIMEOUTS
from worker.vendor import Vendor

DAY = datetime(2026, 3, 5, tzinfo=UTC)
WINDOW = Window(DAY + timedelta(hours=8), DAY + timedelta(hours=12))
LOGIN_PAGE = b"<!DOCTYPE html><html><body><form action='/login'>Please sign in</form></body></html>"

HOSTILE_IDS = (
    "../../etc/passwd",
    "..",
    "a/b\\c",
    "what?x=1#y",
    "100%25+&=;",
    "tab\tand\nnewline",
    "bell\x07",
    "~2E-Ünïcode-電話",
    "x" * 2000,
)


@dataclass
class Site:
    """One connector with everything around it."""

    source: Source
    clock: FakeClock
    permits: MemoryPermits
    rest: RestClient
    connector: Vendor

    async def pages(self, window: Window = WINDOW) -> list[Page]:
        return [page async for page in listed(self.connector, window)]

    async def recordings(self, window: Window = WINDOW) -> list[Recording]:
        return [recording for page in await self.pages(window) for recording in page.recordings]

    async def media(self, recording: Recording) -> bytes:
        stream = await self.connector.open_media(recording)
        try:
            return b"".join([chunk async for chunk in stream.chunks()])
        finally:
            await stream.aclose()

    async def fetch(self, recording: Recording) -> bytes:
        """Do what archiving does: ask for details, then read the media."""
        return await self.media(await self.connector.describe(recording))

    @property
    def free(self) -> bool:
        """Whether no slot is held."""
        return self.permits.in_use(self.source.name) == 0


def calls_of_the_day(count: int = 7) -> list[Call]:
    """Return finished calls of all directions, 20 minutes apart, the last of them half an hour before the end."""
    parties = (("inbound", "5550100", "1001"), ("outbound", "1002", "5550101"), ("internal", "1003", "1004"))
    calls = []
    for number in range(count):
        direction, from_, to = parties[number % 3]
        started = WINDOW.start + timedelta(minutes=20 * number, seconds=number)
        calls.append(Call(number, started, 12.0 + number, direction, from_, to, "Ada Example", "support"))
    return calls


def secrets_sent(simulator: Simulator) -> set[str]:
    """Return every credential and session token that requests carried."""
    found: set[str] = set()
    for seen in simulator.requests:
        values = [v for k, v in seen.query.items() if k.lower() in ("token", "apikey", "password", "access_token")]
        headers = {name.lower(): value for name, value in seen.headers.items()}
        values.append(headers.get("x-auth-token", ""))
        values += [pair.partition("=")[2] for pair in headers.get("cookie", "").split("; ")]
        scheme, _, told = headers.get("authorization", "").partition(" ")
        values.append(told)
        if scheme == "Basic":
            values.append(base64.b64decode(told).decode().partition(":")[2])
        found.update(v for v in values if len(v) > 3)
    return found


class VendorSite:
    """Class attributes say what a vendor can tell; fixtures open it."""

    simulator: ClassVar[type[Simulator]]
    vendor: ClassVar[type[Vendor]]
    pages: ClassVar[bool] = True
    """Whether listings come in pages."""
    states: ClassVar[Mapping[str, Readiness]] = {}
    """Call states that are listed though they are not `complete`, and what they must be read as."""
    tells_direction: ClassVar[bool] = True
    tells_agent: ClassVar[bool] = False
    tells_queue: ClassVar[bool] = False
    details: ClassVar[bool] = False
    """Whether `describe` asks the source."""
    media_401_stops: ClassVar[bool] = True
    """Whether a 401 that stays on one recording's media stops the source, as where a fresh login was refused."""
    hostile_ids: ClassVar[tuple[str, ...]] = HOSTILE_IDS

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock(DAY + timedelta(hours=13))

    @pytest.fixture
    def phones(self, clock: FakeClock) -> Iterator[Simulator]:
        phones = self.simulator(calls_of_the_day())
        phones.use_clock(clock.now)
        with phones:
            yield phones

    @pytest.fixture
    async def open_site(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Any]:
        """Return a function that opens a connector for a simulator."""
        opened: list[RestClient] = []

        def opener(phones: Simulator, *, timeouts: aiohttp.ClientTimeout = TIMEOUTS, **source_keys: Any) -> Site:
            source = Source(
                name="hq",
                vendor=self.vendor.info.name,
                url=phones.url,
                timezone=ZoneInfo(phones.timezone) if phones.timezone else None,
                options=self.vendor.info.options(**phones.settings()),
                **source_keys,
            )
            permits = MemoryPermits(clock)
            rest = RestClient(
                source,
                Gate(source, permits, clock),
                clock,
                state_dir=tmp_path / "sessions",
                cookies=self.vendor.info.cookies,
                timeouts=timeouts,
            )
            opened.append(rest)
            return Site(source, clock, permits, rest, self.vendor(rest, source))

        yield opener
        for rest in opened:
            await rest.aclose()

    @pytest.fixture
    def site(self, open_site: Any, phones: Simulator) -> Site:
        site: Site = open_site(phones)
        return site

    @pytest.fixture
    async def one(self, site: Site) -> Recording:
        """The first recording of the day, listed and described."""
        return await site.connector.describe((await site.recordings())[0])
