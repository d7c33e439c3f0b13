"""What becomes of a recording after it was archived, carried out by real workers on a real broker."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery

from config.clock import SystemClock
from config.load import load
from tasks import names
from tasks.celery_settings import celery_settings
from tests.integration.conftest import MakeSite
from tests.integration.test_run import calls
from tests.support.s3 import eyes, new_bucket
from tests.support.site import Site
from tests.support.valkey import Valkey
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo
from worker.vendors import vendor_keys

ROOT = Path(__file__).parents[2]
POLICY = """
[retention]
mode = "governance"
default = "1d"
expire = true
"""


@pytest.fixture
def site(make_site: MakeSite, s3: str, valkey: Valkey) -> Site:
    """Return a site with three calls of two days ago, which may go, in a bucket that locks."""
    valkey.flush()
    old = [replace(call, started_at=call.started_at - timedelta(days=1)) for call in calls("xivo", 3)]
    archive = new_bucket(s3, object_lock=True)
    return make_site(
        {"hq": SimulatedXivo(old)}, archive=archive, broker=valkey.url, runtime={"processes": 2}, retention=POLICY
    )


@pytest.fixture
def log(site: Site, tmp_path: Path) -> Iterator[Path]:
    """Run a worker with two processes; return where its log is."""
    environ = {**os.environ, **site.environ, "CALLVAULT_CONFIG": str(site.write()), "PYTHONWARNINGS": "ignore"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks", "worker"],
            env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    yield log
    worker.terminate()
    assert worker.wait(60) == 0


def hold(site: Site, *words: str) -> str:
    """Give a command in a process of its own, as a process goes by one configuration; return what it prints."""
    command = [sys.executable, "-P", "-m", "tasks", "hold", *words, "--config", str(site.config)]
    return subprocess.run(
        command,
        env={**os.environ, **site.environ},
        cwd=ROOT,
        check=True,
        timeout=100,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def flags(site: Site) -> list[str]:
    """Return the legal hold of every version of media and sidecars."""
    s3, bucket = eyes(site.archive), site.archive.bucket
    rows = s3.list_object_versions(Bucket=bucket, Prefix="v1/recordings/").get("Versions", [])
    heads = [s3.head_object(Bucket=bucket, Key=row["Key"], VersionId=row["VersionId"]) for row in rows]
    return [head.get("ObjectLockLegalHoldStatus") or "OFF" for head in heads]


def test_workers_hold_free_audit_and_destroy(site: Site, log: Path) -> None:
    """A matter is carried through by the workers while the command looks on; what no matter holds any more is audited
    and then destroyed by the nightly run, with a complete certificate.
    """
    assert site.run("--from", "2020-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z")[1]["archived"] == 3
    placed = hold(site, "add", "smith", "--reason", "dispute", "--source", "hq", "--json")
    assert json.loads(placed)["name"] == "smith"
    assert flags(site) == ["ON"] * 6
    client = Celery("client", set_as_current=False)
    client.conf.update(celery_settings(load(site.config, vendor_keys(), site.environ), SystemClock().now()))
    client.send_task(names.AUDIT)
    wait_for(lambda: '"audit_finished"' in log.read_text(), "the audit is over")
    assert '"audit_finding"' not in log.read_text()
    hold(site, "release", "smith", "--reason", "settled", "--detach")
    wait_for(lambda: flags(site) == ["OFF"] * 6, "all are free")
    client.send_task(names.EXPIRE)
    wait_for(lambda: not any(key.startswith("v1/recordings/") for key in site.listing()), "all is destroyed")
    wait_for(lambda: '"expiry_finished"' in log.read_text(), "the run is over")
    client.close()
    assert flags(site) == [], "nor is any version left"
    (key,) = (key for key in site.listing() if key.startswith("v1/certificates/"))
    certificate = json.loads(site.read(key))
    assert certificate["state"] == "complete"
    assert [item["fate"] for item in certificate["recordings"]] == ["destroyed"] * 3
