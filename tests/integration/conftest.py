"""What integration tests share: an S3 over HTTP, and sites made of simulated phone systems."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.s3 import moto, new_bucket
from tests.support.simulator import Simulator
from tests.support.site import Site


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries: what they are for is told by the unit tests, with a clock in hand."""
    monkeypatch.setattr("worker.pipeline._PAUSE", 0.01)
    monkeypatch.setattr("worker.rest.client._BACKOFF", 0.01)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Run moto's S3 for this test process; return its URL."""
    with moto() as url:
        yield url


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(s3: str, tmp_path: Path) -> Iterator[MakeSite]:
    """Return a function that sets up a site from simulators by source name; they stop with the test."""
    with ExitStack() as stack:

        def making(sources: dict[str, Simulator], **more: Any) -> Site:
            for simulator in sources.values():
                stack.enter_context(simulator)
            archive = more.pop("archive", None) or new_bucket(s3)
            site = Site(tmp_path, archive, sources, {}, more.pop("extra", {}), **more)
            site.write()
            return site

        yield making
