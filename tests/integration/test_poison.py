"""Recordings that kill whoever downloads them, in real workers on a real broker."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from config.clock import SystemClock
from config.load import load
from storage.state_redis import RedisState
from tasks import names
from tasks.celery_settings import celery_settings
from tests.integration.conftest import MakeSite
from tests.integration.test_run import calls
from tests.support.site import Site
from tests.support.valkey import Valkey
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo
from worker.pipeline import MAX_CRASHES
from worker.vendors import vendor_keys

ROOT = Path(__file__).parents[2]


class Stage:
    """Two sources, one with a recording that kills; workers; and a client that asks for polls."""

    def __init__(self, site: Site, valkey: Valkey, folder: Path) -> None:
        self.site, self.valkey, self.folder = site, valkey, folder
        self.settings = load(site.write(), vendor_keys(), site.environ)
        self.poison = site.sources["hq"].calls[2]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.client = Celery("client", set_as_current=False)
        self.client.conf.update(celery_settings(self.settings, SystemClock().now()))

    def worker(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a worker in which the recording kills; `parent` has it kill the whole worker."""
        command = [sys.executable, "-P", "-m", "tests.support.deadly", *words, self.poison.id, str(self.diary)]
        environ = {**os.environ, **self.site.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        environ["CALLVAULT_CONFIG"] = str(self.site.config)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--concurrency", "2"], env=environ, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    @property
    def diary(self) -> Path:
        return self.folder / "diary"

    def deaths(self) -> int:
        return len(self.diary.read_text().splitlines()) if self.diary.exists() else 0

    def poll(self, source: str) -> None:
        self.client.send_task(names.POLL, (source,))

    def held(self, source: str) -> int:
        prefix = f"v1/recordings/source={source}/"
        return sum(key.startswith(prefix) and key.endswith(".json") for key in self.site.listing())

    def quiet(self) -> bool:
        """Tell whether no message waits or is being worked on."""
        prefix = f"callvault:{self.settings.archive.namespace}:"
        with self.valkey.client() as asked:
            waiting: Any = [asked.llen(f"{prefix}{queue}") for queue in names.QUEUES]
            return not any(waiting) and not asked.hlen(f"{prefix}unacked")

    def forget_chain(self) -> None:
        """Have the source's chain lapse, as it does by itself three quarters of a minute after its worker's death."""

        async def drop() -> None:
            state = RedisState(self.valkey.url, self.settings.archive.namespace, SystemClock())
            await state.drop("chain:hq:poll")
            await state.aclose()

        asyncio.run(drop())

    def end(self) -> None:
        self.client.close()
        for process in self.processes:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
                child.kill()
            process.kill()
            process.wait()


@pytest.fixture
def stage(make_site: MakeSite, valkey: Valkey, tmp_path: Path) -> Iterator[Callable[[], Stage]]:
    """Return a function that sets the stage, on an emptied broker."""
    stages: list[Stage] = []

    def setting() -> Stage:
        valkey.flush()
        sources = {"hq": SimulatedXivo(calls("xivo", 8)), "branch": SimulatedXivo(calls("xivo", 5))}
        site = make_site(sources, broker=valkey.url, runtime={"processes": 2})
        stages.append(Stage(site, valkey, tmp_path))
        return stages[-1]

    yield setting
    for each in stages:
        each.end()


def log(stage: Stage) -> str:
    """Return the end of the worker's log, for whoever has to find out why a test failed."""
    return (stage.folder / "log").read_text()[-3000:]


def test_a_recording_that_kills_its_worker_becomes_a_gap_and_stops_nobody(stage: Callable[[], Stage]) -> None:
    """Three deaths, or a few more where a slow machine loses its leases, and it is a gap `crashed`; all others are
    archived, and no message goes round.
    """
    here = stage()
    here.worker()
    here.poll("hq")
    wait_for(lambda: here.deaths() >= 1, "the first process died")
    here.poll("branch")
    wait_for(lambda: here.held("branch") == 5, "another source is archived meanwhile")
    (gap,) = wait_for(here.site.gaps, f"a gap is on record: {log(here)}", patience=90)
    assert (gap["recording_id"], gap["reason"]) == (here.poison.id, "crashed")
    wait_for(lambda: here.held("hq") == 7, f"all others are held: {log(here)}")
    wait_for(here.quiet, "nothing is under way")
    here.poll("hq")
    deaths = here.deaths()
    wait_for(here.quiet, "a further poll finds nothing to do")
    assert MAX_CRASHES <= here.deaths() == deaths <= 2 * MAX_CRASHES


def test_a_flush_in_between_costs_some_tries_more(stage: Callable[[], Stage], valkey: Valkey) -> None:
    """The deaths counted until then are forgotten with everything else; it ends all the same."""
    here = stage()
    here.worker()
    here.poll("hq")
    wait_for(lambda: here.deaths() >= 1, "the first process died")
    valkey.flush()
    here.poll("hq")
    (gap,) = wait_for(here.site.gaps, f"a gap is on record: {log(here)}", patience=90)
    assert (gap["recording_id"], gap["reason"]) == (here.poison.id, "crashed")
    wait_for(lambda: here.held("hq") == 7, f"all others are held: {log(here)}")
    assert MAX_CRASHES < here.deaths() <= 2 * MAX_CRASHES


def test_a_worker_killed_whole_is_made_up_for_by_the_next_poll(stage: Callable[[], Stage]) -> None:
    """Nobody is left to hand its messages back: the chain lapses, and its deaths count like those of one process."""
    here = stage()
    for death in range(1, MAX_CRASHES + 1):
        process = here.worker("parent")
        here.poll("hq")
        process.wait(60)
        assert here.deaths() == death, log(here)
        here.forget_chain()
    here.worker("parent")
    here.poll("hq")
    (gap,) = wait_for(here.site.gaps, f"a gap is on record: {log(here)}", patience=90)
    assert (gap["recording_id"], gap["reason"]) == (here.poison.id, "crashed")
    wait_for(lambda: here.held("hq") == 7, f"all others are held: {log(here)}")
    assert here.deaths() == MAX_CRASHES
