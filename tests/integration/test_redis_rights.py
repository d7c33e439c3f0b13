"""The least rights of a Redis user: what operations.md gives is enough for everything, and none of it is idle."""

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis as client_library

from tests.integration.conftest import MakeSite
from tests.support.crew import Crew, calls
from tests.support.redis_server import RedisServer
from tests.support.site import Site
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo
from tests.system.test_promises import audit

OPERATIONS = Path(__file__).parents[2] / "deploy" / "operations.md"
PASSWORD = "hunter2"


def documented(namespace: str) -> list[str]:
    """Return the words of operations.md's `ACL SETUSER callvault …`."""
    (line,) = re.findall(r"^ACL SETUSER callvault (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    return str(line).replace("PASSWORD", PASSWORD).replace("NAMESPACE", namespace).split()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Start a Redis with an ACL file, in which the user has no rights yet."""
    with RedisServer(tmp_path / "redis", users=["user callvault off"]) as server:
        yield server


@pytest.fixture
def site(make_site: MakeSite, redis: RedisServer) -> Site:
    """Return a site that logs in as this user."""
    url = redis.url.replace("://", f"://callvault:{PASSWORD}@")
    return make_site({"hq": SimulatedXivo(calls(4))}, broker=url, runtime={"processes": 2})


def denied(admin: client_library.Redis) -> set[tuple[str, str]]:
    """Return what the user was refused."""
    return {(entry["reason"], entry["object"]) for entry in admin.acl_log()}


def test_the_documented_rights_suffice_and_none_is_idle(site: Site, redis: RedisServer) -> None:
    """Worker, scheduler, redelivery after a death, status, health, check, backfill: nothing is refused, all is used."""
    phones = site.sources["hq"]
    with Crew(site) as crew, redis.client() as admin:
        namespace = crew.settings.archive.namespace
        rights = documented(namespace)
        admin.execute_command("ACL", "SETUSER", "callvault", *rights)
        worker = crew.worker()
        beat = crew.start("-m", "tasks", "beat")
        crew.archives(4)
        # the whole worker dies; its message is given to another when its time is over, which is now
        phones.fault("stall", after=50)
        phones.add(calls(1, first=50)[0])
        crew.poll()
        wait_for(lambda: phones.at_once, "a transfer is under way")
        phones.faults.clear()
        for process in (*psutil.Process(worker.pid).children(), worker):
            process.kill()
        worker.wait()
        index = f"callvault:{namespace}:unacked_index"
        admin.zadd(index, dict.fromkeys(admin.zrange(index, 0, -1), 0))
        for lease in admin.keys(f"callvault:{namespace}:lease:*"):
            admin.delete(lease)
        worker = crew.worker()
        crew.archives(5)
        for verb in ("check", "status", "health"):
            result = site.callvault(verb)
            assert result.exit_code == 0, result.output
        span = ("--from", "2026-01-01", "--to", "2026-01-03")
        asking = crew.start("-m", "tasks", "backfill", "--source", "hq", *span)  # Celery is configured once a process
        assert asking.wait(60) == 0, crew.words()
        worker.terminate()
        assert worker.wait(30) == 0
        beat.terminate()
        assert beat.wait(30) == 0
        assert denied(admin) == set()
        called = {name.removeprefix("cmdstat_") for name, told in admin.info("commandstats").items() if told["calls"]}
        assert {right[1:] for right in rights if right[0] == "+"} - called == set(), "nobody needs these"
        assert len(audit(site)) == 5


@pytest.mark.parametrize(
    ("right", "what"),
    [
        ("~callvault:{}:*", ("key", "callvault:{}:")),
        ("&callvault:{}:/0.celery.pidbox", ("channel", "callvault:{}:/0.celery.pidbox")),
        ("+brpop", ("command", "brpop")),
    ],
)
def test_with_less_a_worker_cannot_work(site: Site, redis: RedisServer, right: str, what: tuple[str, str]) -> None:
    """Without the keys, the channel it listens on, or a command, nothing is archived, and the log says of what."""
    with Crew(site) as crew, redis.client() as admin:
        namespace = crew.settings.archive.namespace
        rights = documented(namespace)
        rights.remove(right.format(namespace))
        admin.execute_command("ACL", "SETUSER", "callvault", *rights)
        worker = crew.start("-m", "tasks", "worker")
        wait_for(lambda: worker.poll() is not None, "the worker gives up")
        assert worker.returncode == 1
        reason, thing = what[0], what[1].format(namespace)
        assert any(why == reason and found.startswith(thing) for why, found in denied(admin))
        assert "has no permissions" in crew.log.read_text()
