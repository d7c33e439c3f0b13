"""A Redis that hangs, evicts, or is full: what workers do, and what is said about it."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis.exceptions import TimeoutError as Silent

from tests.integration.conftest import MakeSite
from tests.support.crew import Crew, calls
from tests.support.redis_server import RedisServer
from tests.support.site import Site
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo
from tests.system.test_promises import audit


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Start a Redis of this test's own: what is done to it concerns nobody else."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def site(make_site: MakeSite, redis: RedisServer) -> Site:
    """Return a site with five calls at one phone system."""
    return make_site({"hq": SimulatedXivo(calls(5))}, broker=redis.url, runtime={"processes": 2})


def test_a_broker_that_hung_is_consumed_from_again(site: Site, redis: RedisServer) -> None:
    """The server keeps its connections and says nothing for a while; the same worker goes on afterwards."""
    with Crew(site) as crew:
        worker = crew.worker()
        crew.poll()
        crew.archives(1)
        redis.freeze()
        try:
            with redis.client(socket_timeout=1, retry=None) as client, pytest.raises(Silent):
                client.ping()
        finally:
            redis.thaw()
        crew.poll()
        crew.archives(5)
        for call in calls(3, first=101):
            site.sources["hq"].add(call)
        crew.poll()
        crew.archives(8)
        assert len(audit(site)) == 8
        assert worker.poll() is None, crew.words()


@pytest.mark.parametrize(
    "command",
    [
        ("tasks", "worker"),
        ("tasks", "beat"),
        ("tasks", "up"),
        ("celery", "-A", "tasks.app", "worker", "--pool", "solo"),
        ("celery", "-A", "tasks.app", "beat"),
    ],
)
def test_a_server_that_evicts_is_refused_at_start(site: Site, redis: RedisServer, command: tuple[str, ...]) -> None:
    """Whatever is started ends with 2 and a sentence: what is wrong, and what to set."""
    with redis.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "volatile-lru")
    with Crew(site) as crew:
        assert crew.start("-m", *command).wait(30) == 2, crew.words()
        said = crew.log.read_text()
        assert "(maxmemory-policy is volatile-lru): set `maxmemory-policy noeviction` in its configuration" in said
        assert "Traceback" not in said
        assert crew.held() == 0


def test_eviction_turned_on_later_is_unhealthy(site: Site, redis: RedisServer) -> None:
    """`health` fails, and `check` too; without a limit of memory nothing is ever evicted, and that is a remark."""
    with redis.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "note: the state server" in site.callvault("check").output
        assert "ok      broker: answers; the state server" in site.callvault("health").output
        client.config_set("maxmemory", "100mb")
    for verb in ("check", "health"):
        result = site.callvault(verb)
        assert result.exit_code == 4
        assert "may throw queues and state away" in result.output


def test_a_full_redis_loses_nothing(site: Site, redis: RedisServer) -> None:
    """Out of memory when a task begins and when a message arrives: it is said, waited for, and all is archived."""
    with Crew(site) as crew, redis.client() as client:
        worker = crew.worker()
        pool = psutil.Process(worker.pid).children()
        for process in pool:
            process.suspend()
        crew.poll()
        wait_for(crew.logged("callvault.poll["), "the worker has the message")
        client.config_set("maxmemory", 1)
        for process in pool:
            process.resume()
        wait_for(crew.logged("is out of memory: raise its maxmemory"), "the task says so")
        wait_for(crew.logged("Couldn't ack"), "and stays unacknowledged")
        client.config_set("maxmemory", 0)
        psutil.Process(worker.pid).suspend()
        crew.poll()
        client.config_set("maxmemory", 1)
        psutil.Process(worker.pid).resume()
        wait_for(crew.logged("Connection to broker lost"), "the worker cannot note that it has the message")
        client.config_set("maxmemory", 0)
        crew.poll()
        crew.archives(5)
        assert len(audit(site)) == 5
        assert worker.poll() is None, crew.words()
