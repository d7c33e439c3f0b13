"""Promise 9: eight recordings of 100 MB at once, through one worker process, watched from outside."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.s3 import moto, new_bucket
from tests.support.simulator import Call
from tests.support.site import Site
from tests.support.tree import Tree
from tests.support.valkey import Valkey
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo

ROOT = Path(__file__).parents[2]
SIZE = 100_000_000
MOST = 350_000_000
COMMANDS = {
    "run": [sys.executable, "-P", "-m", "tasks", "run"],
    "worker": [sys.executable, "-P", "-m", "celery", "-A", "tasks.app", "worker", "-c", "1"],
}


@pytest.fixture(scope="module")
def large() -> bytes:
    """Return 100 MB that begin like a WAV; the eight recordings share them."""
    return (
        b"RIFF" + (SIZE - 8).to_bytes(4, "little") + b"WAVE" + os.urandom(988) + os.urandom(1000) * (SIZE // 1000 - 1)
    )


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run moto's S3; return its URL."""
    with moto() as url:
        yield url


@pytest.mark.parametrize("way", ["run", "worker"])
def test_promise_9_memory_is_bounded_by_settings(
    tmp_path: Path, s3: str, valkey: Valkey, large: bytes, way: str
) -> None:
    """The whole process tree stays below 350 MB: the sum of each process's own peak, as the kernel kept it."""
    now = datetime.now(UTC).replace(microsecond=0)
    calls = [Call(number=n, started_at=now - timedelta(hours=2, minutes=n), media=large) for n in range(8)]
    valkey.flush()
    with SimulatedXivo(calls) as simulator:
        site = Site(tmp_path, new_bucket(s3), {"hq": simulator}, {}, {"hq": {"max_connections": 8}}, broker=valkey.url)
        site.write()
        valkey.nobody_in_flight(site.archive.namespace)
        environ = {**os.environ, **site.environ, "PYTHONPATH": str(ROOT), "CALLVAULT_CONFIG": str(site.config)}
        output = tmp_path / "output"
        with Tree(COMMANDS[way], environ, output) as tree:
            if way == "worker":
                scheduler = [sys.executable, "-P", "-c", "from tasks.send import send_poll; send_poll('hq')"]
                with Tree(scheduler, environ, output) as sending:
                    sending.process.wait(60)
            wait_for(
                lambda: sum(key.endswith(".json") for key in site.listing()) == 8, "all eight are held", patience=100
            )
        assert SIZE / 10 < tree.bound < MOST, output.read_text()[-2000:]
        assert simulator.most_at_once > 1
