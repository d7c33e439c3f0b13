"""Redis behind a Sentinel: the primary dies, a replica takes over, work goes on."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import MakeSite
from tests.support.crew import Crew, calls
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo
from tests.system.test_promises import audit

LOGIN = "hunter2-of-the-server"
WATCH = "hunter2-of-the-sentinel"


@dataclass
class Watched:
    """A primary, its replica, and the Sentinel that watches both."""

    primary: RedisServer
    replica: RedisServer
    sentinel: RedisServer

    @property
    def url(self) -> str:
        options = f"master_name=primary&sentinel_password={WATCH}"
        return f"sentinel://:{LOGIN}@127.0.0.1:{self.sentinel.port}/0?{options}"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Start the three, each asking for its password, and wait until the Sentinel knows the replica."""
    impatient = [
        f"sentinel auth-pass primary {LOGIN}",
        "sentinel down-after-milliseconds primary 500",
        "sentinel failover-timeout primary 2000",
    ]
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer(tmp_path / "primary", password=LOGIN))
        replica = stack.enter_context(RedisServer(tmp_path / "replica", replica_of=primary, password=LOGIN))
        sentinel = stack.enter_context(
            RedisServer(tmp_path / "sentinel", sentinel_of=primary, password=WATCH, lines=impatient)
        )
        with sentinel.client() as asked, replica.client() as follower:
            wait_for(lambda: follower.info("replication")["master_link_status"] == "up", "the replica follows")
            wait_for(lambda: asked.sentinel_master("primary")["num-slaves"] == 1, "the Sentinel knows the replica")
        yield Watched(primary, replica, sentinel)


def test_work_goes_on_after_a_fail_over(make_site: MakeSite, tmp_path: Path, watched: Watched) -> None:
    """The primary is killed in mid-work; the worker finds the new one, and nothing is lost or doubled."""
    phones = SimulatedXivo(calls(6))
    site = make_site({"hq": phones}, broker=watched.url, runtime={"processes": 2})
    with Crew(site) as crew:
        worker = crew.worker()
        crew.poll()
        crew.archives(3)
        watched.primary.kill()
        for call in calls(4, first=101):
            phones.add(call)
        with watched.replica.client() as promoted:
            wait_for(lambda: promoted.info("replication")["role"] == "master", "the replica was promoted")
        crew.poll()
        crew.archives(10)
        assert len(audit(site)) == 10
        assert worker.poll() is None, f"the worker went on by itself:\n{crew.words()}"
        assert site.callvault("check").exit_code == 0
        assert site.callvault("status").exit_code == 0
        health = site.callvault("health")
        assert "ok      broker" in health.output
        said = crew.log.read_text() + health.output
    assert LOGIN not in said
    assert WATCH not in said
