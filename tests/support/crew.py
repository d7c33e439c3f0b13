"""The processes of a site, as its users start them: watched through their log, and gone afterwards."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import psutil
from celery import Celery
from kombu.exceptions import OperationalError

from config.clock import SystemClock
from config.load import load
from config.settings import Settings
from storage.state import StateUnavailable
from storage.state_redis import RedisState
from tasks import launch, names
from tasks.broker import state_url
from tasks.celery_settings import celery_settings
from tests.support.simulator import Call
from tests.support.site import Site
from tests.support.waiting import wait_for
from worker import chain
from worker.vendors import vendor_keys

_LAST_WORDS = 3000
_POLL_EVERY = 5.0  # seconds
_PATIENCE = 60 + chain.ALIVE
"""Seconds: what a worker that died was at is left alone for a while."""


def calls(count: int, first: int = 1) -> list[Call]:
    """Return calls that ended some hours ago."""
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    return [Call(number=n, started_at=began + timedelta(seconds=20 * n)) for n in range(first, first + count)]


class Crew:
    """A context manager; whatever was started in it is gone at its end."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.log = site.folder / "crew.log"
        self.log.touch()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._next_poll = time.monotonic() + _POLL_EVERY
        site.write()

    @property
    def environ(self) -> dict[str, str]:
        return {**launch.environment(self.site.config, os.environ), **self.site.environ, "PYTHONWARNINGS": "ignore"}

    @property
    def settings(self) -> Settings:
        return load(self.site.config, vendor_keys(), self.environ)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start Python with these arguments in the site's folder."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", *command],
                cwd=self.site.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it takes messages."""
        if not self.processes:
            asyncio.run(self._nobody_in_flight())
        before = self.log.read_text().count('"worker_started"')
        process = self.start("-m", "tasks", "worker")
        wait_for(lambda: self.log.read_text().count('"worker_started"') > before, f"a worker is ready:\n{self.words()}")
        return process

    def logged(self, text: str) -> Callable[[], bool]:
        """Return a question: does the log hold this text by now."""
        return lambda: text in self.log.read_text()

    def words(self) -> str:
        """Return what was said last."""
        return self.log.read_text()[-_LAST_WORDS:]

    @contextmanager
    def client(self) -> Iterator[Celery]:
        """Yield an application that sends to the site's queues."""
        client = Celery("client", set_as_current=False)
        client.conf.update(celery_settings(self.settings, datetime.now(UTC)))
        with client:
            yield client

    def poll(self, source: str = "hq") -> None:
        """Ask for a poll, as soon as the broker takes it."""
        with self.client() as client:

            def asked() -> bool:
                try:
                    return bool(client.send_task(names.POLL, (source,)))
                except OperationalError:  # it is away
                    return False

            wait_for(asked, "the broker takes a message")

    def held(self) -> int:
        """Count the sidecars in the bucket."""
        return sum(key.startswith("v1/recordings/") and key.endswith(".json") for key in self.site.listing())

    def archives(self, count: int, patience: float = _PATIENCE) -> None:
        """Wait until so many recordings are held, and ask for a poll now and then meanwhile, as a schedule does."""

        def done() -> bool:
            if self.held() >= count:
                return True
            if time.monotonic() >= self._next_poll:
                self._next_poll = time.monotonic() + _POLL_EVERY
                self.poll()
            return False

        try:
            wait_for(done, f"{count} recordings are held", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {self.held()}:\n{self.words()}") from None

    def __enter__(self) -> Self:
        return self

    async def _nobody_in_flight(self) -> None:
        """Spare the workers the wait for requests of others: there are none."""
        state = RedisState(state_url(self.settings), self.settings.archive.namespace, SystemClock())
        with contextlib.suppress(StateUnavailable):  # a broker that is not there has nobody in flight either
            await state.nobody_in_flight()
        await state.aclose()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ()
            for child in family:
                child.kill()
            process.kill()
            process.wait()
