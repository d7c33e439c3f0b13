"""What all tests share: a clean environment, a clock that they turn, one real Valkey for each test process."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import redis

pytest.register_assert_rewrite("tests.support", "tests.contract")

from storage.state_redis import RedisState  # noqa: E402 - first what may not be rewritten
from tests.support.binaries import need  # noqa: E402 - only what is imported after the line above is rewritten
from tests.support.clock import FakeClock  # noqa: E402 - as above
from tests.support.rgw import BINARIES, shared_rgw  # noqa: E402 - as above
from tests.support.valkey import Valkey  # noqa: E402 - as above


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_developer() -> Iterator[None]:
    """Hide AWS profiles, keys and regions of the person or machine that runs the tests, and their configuration."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "BOTO_", "CALLVAULT_")):
                patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands still until it is advanced."""
    return FakeClock()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """Start one Valkey for this test process; who uses it empties it first with `flush`."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a real S3 server, one for all processes of this test run; skips where it is not installed."""
    need(*BINARIES)
    base = tmp_path_factory.getbasetemp()
    with shared_rgw((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "rgw") as url:
        yield url


@pytest.fixture
def raw(valkey: Valkey) -> Iterator[redis.Redis]:
    """Return a client for looking behind the state's back, on an empty Valkey."""
    valkey.flush()
    with valkey.client() as client:
        yield client


OpenState = Callable[..., RedisState]


@pytest_asyncio.fixture
async def open_state(valkey: Valkey, clock: FakeClock) -> AsyncIterator[OpenState]:
    """Return a function that opens a state with connections of its own; all are closed at the end.

    Permits are granted at once on an empty server, which here means that there is no phone system to overload.
    """
    opened: list[RedisState] = []

    def opening(url: str = valkey.url, namespace: str = "acme", *, grace: float = 0, **options: Any) -> RedisState:
        opened.append(RedisState(url, namespace, clock, grace=grace, **options))
        return opened[-1]

    yield opening
    for state in opened:
        await state.aclose()
