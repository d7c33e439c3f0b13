"""`callvault up` as its user runs it: embedded broker, real worker, phone system and S3 over HTTP, kills and stops."""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from storage.keys import rid
from tests.support.audio import wav
from tests.support.s3 import eyes, moto, new_bucket
from tests.support.simulator import Call
from tests.support.site import Site
from tests.support.tree import Tree
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo

ROOT = Path(__file__).parents[2]
LARGE = 12_000_000


def held(site: Site) -> int:
    """Count the sidecars."""
    return sum(key.endswith(".json") and key.startswith("v1/recordings/") for key in site.listing())


def pool(tree: Tree) -> list[psutil.Process]:
    """Return the prefork children of the worker: its grandchildren of `up`."""
    return [child for process in tree.process_children() for child in process.children()]


def test_up_survives_the_death_of_a_worker_child_and_stops_clean(tmp_path: Path) -> None:
    """SIGKILL in mid-transfer costs nothing; SIGTERM in mid-upload ends it in time, with nothing half-written."""
    now = datetime.now(UTC).replace(microsecond=0)
    calls = [
        Call(
            number=n,
            started_at=now - timedelta(hours=3, minutes=-n),
            media=wav(LARGE / 8000, seed=1) if n == 3 else b"",
        )
        for n in range(8)
    ]
    with moto() as s3, SimulatedXivo(calls) as simulator:
        site = Site(tmp_path, new_bucket(s3), {"hq": simulator}, {}, {}, runtime={"processes": 2})
        site.write()
        environ = {**os.environ, **site.environ, "PYTHONPATH": str(ROOT), "CALLVAULT_CONFIG": str(site.config)}
        stuck = simulator.fault("stall", recording=calls[3].id, after=9_000_000)
        output = tmp_path / "output"
        with Tree([sys.executable, "-P", "-m", "tasks", "up"], environ, output) as tree:
            wait_for(lambda: simulator.count("media") == 8 and held(site) == 7, "all but one are held, one hangs")
            simulator.faults.clear()
            for child in pool(tree):
                child.kill()
            wait_for(lambda: held(site) == 8, "the batch was delivered again and archived", patience=100)
            late = simulator.add(
                Call(number=99, started_at=now - timedelta(minutes=30), media=wav(LARGE / 8000, seed=2))
            )
            stuck.times, stuck.recording = 1_000_000, late.id
            simulator.faults.append(stuck)
            ask = "from tasks.send import send_poll; send_poll('hq')"
            with Tree([sys.executable, "-P", "-c", ask], environ, output) as asking:
                asking.process.wait(60)
            client = eyes(site.archive)

            def uploads() -> list[object]:
                """List the unfinished uploads of the late one; what a SIGKILL leaves is the daily clean-up's."""
                found = client.list_multipart_uploads(Bucket=site.archive.bucket).get("Uploads", [])
                return [upload for upload in found if rid(late.id) in upload["Key"]]

            wait_for(lambda: uploads() and simulator.at_once == 1, "the late one is half-way up")
            tree.process.terminate()
            assert tree.process.wait(30) == 0, output.read_text()[-3000:]
        assert uploads() == []
        assert held(site) == 8
        assert len(site.listing()) == 16
        assert set(simulator.downloads.values()) <= {1, 2}
