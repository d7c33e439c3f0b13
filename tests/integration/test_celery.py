"""Real workers and schedulers against a real Valkey: consumption, deaths, stops, and what is on the wire."""

import contextlib
import json
import os
import pickle
import signal
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from tasks import names
from tasks.celery_settings import celery_settings
from tasks.embedded import address
from tasks.roster import at_work
from tests.support.clock import FakeClock
from tests.support.installation import Installation as Site
from tests.support.installation import saying_no, sung
from tests.support.lingering import LINGER
from tests.support.valkey import Valkey
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """Serve bucket and phone system of a site: both say no at once."""
    with saying_no() as url:
        yield url


@pytest.fixture
def site(tmp_path: Path, refusing: str, valkey: Valkey) -> Iterator[Site]:
    """Return a site whose broker is the test process's Valkey, emptied."""
    valkey.flush()
    site = Site(tmp_path, refusing, valkey)
    yield site
    site.end()


@pytest.fixture
def client(site: Site, valkey: Valkey, clock: FakeClock) -> Iterator[Celery]:
    """Return an application that sends to the site's queues."""
    client = Celery("client", set_as_current=False)
    client.conf.update(celery_settings(site.settings, clock.now()))
    with client:
        yield client


def queued(valkey: Valkey, namespace: str, queue: str) -> list[dict[str, Any]]:
    """Return the messages that wait in a queue, as they are on the wire."""
    with valkey.client() as asked:
        return [json.loads(text) for text in asked.lrange(f"callvault:{namespace}:{queue}", 0, -1)]


def linger(site: Site) -> psutil.Process:
    """Start a worker with the lingering task and return its pool process that lingers."""
    site.start("-m", "tests.support.lingering", "--pool", "prefork", "--concurrency", "2", "--without-mingle")
    began = wait_for(lambda: site.diary("began"), "the task runs")
    return psutil.Process(int(began[0]))


def test_scheduler_and_worker_prove_that_they_work(site: Site, client: Celery, valkey: Valkey) -> None:
    """A scheduler sends the canary at its start, a worker consumes it; both end by SIGTERM, with 0, in good time."""
    namespace = site.namespace
    worker = site.start("-m", "tasks.launch", "worker")
    beat = site.start("-m", "tasks.launch", "beat")
    wait_for(lambda: sung(valkey.url, namespace), "the canary has sung")
    wait_for(site.logged('"poll_started"'), "the source is polled at the start")
    with valkey.client() as asked:
        foreign = [key for key in asked.keys("*") if not key.startswith(f"callvault:{namespace}:")]
        results = [key for key in asked.keys("*") if "celery-task-meta" in key]
    assert foreign == [], "everything lies under the archive's name"
    assert results == [], "no result is kept"
    for process in (worker, beat):
        process.terminate()
        assert process.wait(25) == 0, site.log.read_text()
    assert "hush-hush-hush" not in site.log.read_text()


def test_celery_s_own_command_works_too(site: Site, client: Celery, valkey: Valkey) -> None:
    """`celery -A tasks.app worker` with CALLVAULT_CONFIG set is all a site's own service manager needs."""
    site.start("-m", "celery", "-A", "tasks.app", "worker", "--pool", "solo", "--without-mingle")
    client.send_task(names.CANARY)
    wait_for(lambda: sung(valkey.url, site.namespace), "the canary has sung")


def test_messages_are_small_and_hold_names_only(site: Site, client: Celery, valkey: Valkey) -> None:
    """What waits in the queues is JSON of less than 2 KiB, with no address, credential or file content."""
    client.send_task(names.POLL, ("hq",))
    client.send_task(names.ARCHIVE, ("h" * 40, "poll-0123456789abcdef.1000"))
    client.send_task(names.BACKFILL, ("hq", "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"))
    namespace = site.namespace
    messages = queued(valkey, namespace, "poll") + queued(valkey, namespace, "archive")
    assert len(messages) == 3
    for message in messages:
        assert message["content-type"] == "application/json"
        assert len(json.dumps(message)) < 2048
        assert "://" not in json.dumps(message)


def test_a_pickled_message_is_refused(site: Site, client: Celery, valkey: Valkey) -> None:
    """Whoever can write to the broker cannot run code: the message is dropped, unread, and the worker goes on."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(site.folder / "exploded"),)

    namespace = site.namespace
    client.send_task(names.CANARY)
    (message,) = queued(valkey, namespace, "default")
    message["body"] = b64encode(pickle.dumps(((Bomb(),), {}, {}))).decode()
    message["content-type"] = "application/x-python-serialize"
    with valkey.client() as asked:
        asked.delete(f"callvault:{namespace}:default")
        asked.lpush(f"callvault:{namespace}:default", json.dumps(message))
    client.send_task(names.CANARY)
    site.start("-m", "tasks.launch", "worker", "--pool", "solo")
    wait_for(lambda: sung(valkey.url, namespace), "the canary behind it has sung")
    assert site.logged("ContentDisallowed")() or site.logged("Refusing to deserialize")(), site.log.read_text()
    assert not (site.folder / "exploded").exists()


def test_a_killed_pool_process_is_replaced_and_its_task_done_again(site: Site, client: Celery) -> None:
    """SIGKILL to a pool process, as by the kernel when memory is short, loses nothing: another takes the task."""
    client.send_task(LINGER, (str(site.folder),))
    victim = linger(site)
    (site.folder / "enough").touch()
    victim.kill()
    began = wait_for(lambda: site.diary("began")[1:], "the task runs again")
    assert int(began[0]) != victim.pid


def test_a_stopping_worker_cancels_long_tasks_cleanly(site: Site, client: Celery, valkey: Valkey) -> None:
    """SIGTERM does not wait for long transfers: they are cancelled, clean up, and are acknowledged."""
    client.send_task(LINGER, (str(site.folder),))
    linger(site)
    worker = site.processes[0]
    worker.terminate()
    assert worker.wait(25) == 0, site.log.read_text()
    assert site.diary("cleaned") == site.diary("began")
    with valkey.client() as asked:
        namespace = site.namespace
        assert asked.hlen(f"callvault:{namespace}:unacked") == 0
        assert asked.llen(f"callvault:{namespace}:default") == 0, "the next poll makes up for it"


def test_a_pool_process_that_is_terminated_cleans_up(site: Site, client: Celery) -> None:
    """Celery ends running tasks by SIGTERM when the broker goes away: the task's cleaning up still runs."""
    client.send_task(LINGER, (str(site.folder),))
    victim = linger(site)
    (site.folder / "enough").touch()
    victim.terminate()
    wait_for(lambda: site.diary("cleaned") == [str(victim.pid)], "the task cleaned up")


UP = """
import os, sys
from pathlib import Path
from config.load import load
from config.logs import configure_logging
from tasks.up import run_up
from worker.vendors import vendor_keys
path = Path(sys.argv[1])
settings = load(path, vendor_keys(), os.environ)
configure_logging(json=True, level="info", secrets=settings.secrets())
sys.exit(run_up(settings, path))
"""


@pytest.fixture
def lone(tmp_path: Path, refusing: str) -> Iterator[Site]:
    """Return a site without a broker of its own."""
    site = Site(tmp_path, refusing, None)
    yield site
    site.end()


def test_up_survives_deaths_and_stops_in_time(lone: Site) -> None:
    """Worker, pool and broker are killed with SIGKILL in turn and come back; SIGTERM ends everything with 0."""
    up = lone.start("-c", UP, str(lone.config))
    url = wait_for(lambda: address(lone.folder / "state"), "the embedded broker answers")
    namespace = lone.namespace
    assert url is not None
    wait_for(lambda: sung(url, namespace), "the canary has sung")
    top = psutil.Process(up.pid)

    def role(name: str) -> psutil.Process | None:
        for child in top.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, or gone meanwhile
                if any(name in part for part in child.cmdline()):
                    return child
        return None

    before = {name: role(name) for name in ("worker", "beat", "valkey-server")}
    assert before["worker"] is not None
    assert [worker.pid for worker in at_work(lone.settings)] == [before["worker"].pid], "the watch knows its own worker"
    for name, process in before.items():
        assert process is not None, name
        process.kill()

    def back(name: str) -> Callable[[], bool]:
        return lambda: role(name) not in (None, before[name])

    for name in before:
        wait_for(back(name), f"{name} is back")
    wait_for(lambda: lone.log.read_text().count('"worker_started"') == 2, "the new worker is ready")
    children = top.children(recursive=True)
    up.send_signal(signal.SIGTERM)
    assert up.wait(30) == 0, lone.log.read_text()
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert "hush-hush-hush" not in lone.log.read_text()


def test_work_goes_on_after_the_broker_was_away(site: Site, client: Celery, valkey: Valkey) -> None:
    """The broker dies with all its data and comes back: the very same worker consumes again."""
    site.start("-c", UP, str(site.config))
    wait_for(lambda: sung(valkey.url, site.namespace), "the canary has sung")
    valkey.restart(keep_data=False)
    assert not sung(valkey.url, site.namespace)
    client.send_task(names.CANARY)
    wait_for(lambda: sung(valkey.url, site.namespace), "the canary has sung again")
    assert site.log.read_text().count('"worker_started"') == 1, "no worker had to be started again"


def _lives(process: psutil.Process) -> bool:
    """Tell whether it still runs; one that nobody has asked for its exit code yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_outlives_an_up_that_is_killed(lone: Site) -> None:
    """SIGKILL to `up` ends worker, pool, scheduler and broker too, and the folder is free for the next."""
    up = lone.start("-c", UP, str(lone.config))
    wait_for(lone.logged('"worker_started"'), "the worker is ready")
    children = psutil.Process(up.pid).children(recursive=True)
    assert len(children) >= 5, "worker, two pool processes, scheduler, broker"
    up.kill()
    up.wait()
    wait_for(lambda: not [child for child in children if _lives(child)], "all have ended", patience=180)
    assert address(lone.folder / "state") is None
