"""A RestClient with everything it needs, for tests that are about HTTP and not about a vendor."""

from pathlib import Path
from typing import Any, Self

import aiohttp
from pydantic import SecretStr

from config.settings import Source, VendorOptions
from tests.support.clock import FakeClock
from tests.support.permits import MemoryPermits
from worker.limits import Gate
from worker.rest.client import RestClient
from worker.rest.connect import TIMEOUTS

SECRET = "s3cret/pass word+"


class AnyOptions(VendorOptions):
    """The keys of a vendor that does not exist."""

    username: str = "api"
    password: SecretStr = SecretStr(SECRET)


class Desk:
    """A client, its clock and its permits; close it, or use it as an async context manager."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        cookies: bool = False,
        timeouts: aiohttp.ClientTimeout = TIMEOUTS,
        **source_keys: Any,
    ) -> None:
        self.source = Source(name="hq", vendor="acme", url=url, options=AnyOptions(), **source_keys)
        self.clock = FakeClock()
        self.permits = MemoryPermits(self.clock)
        self.gate = Gate(self.source, self.permits, self.clock)
        self.rest = RestClient(self.source, self.gate, self.clock, state_dir=folder, cookies=cookies, timeouts=timeouts)

    @property
    def free(self) -> bool:
        """Whether no slot is held."""
        return self.permits.in_use("hq") == 0

    def lose_permits(self) -> None:
        """Take the right to their requests from all that are open, as when the state was out of reach for too long."""
        self.gate._take_away(list(self.gate._slots.values()), "the test says so")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.rest.aclose()
