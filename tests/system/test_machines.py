"""Promise 8 over machines: two workers on two addresses share their sources; one is cut off from the broker."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from celery import Celery

from config.load import load
from tasks import launch, names
from tasks.celery_settings import celery_settings
from tests.support.audio import wav
from tests.support.imagicle import SimulatedImagicle
from tests.support.machines import Machine, two_machines
from tests.support.s3 import eyes, moto, new_bucket
from tests.support.simulator import Call, Simulator
from tests.support.site import Site
from tests.support.tcp_proxy import TcpProxy
from tests.support.valkey import Valkey
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo
from worker.vendors import vendor_keys

CAPS = {"hq": 3, "branch": 2}
_POLL_EVERY = 2.0
FIRST = {"hq": 104, "branch": 20}  # of hq more than one batch, so that both machines have work of the same source
LATER = 4


def calls(simulator: Simulator, first: int, count: int) -> None:
    """Let calls end, an hour ago and more."""
    now = datetime.now(UTC).replace(microsecond=0)
    for number in range(first, first + count):
        simulator.add(Call(number, now - timedelta(hours=1, minutes=number), media=wav(0.2, seed=number)))


class Company:
    """Two machines with a worker each, what they share, and somebody who asks for polls."""

    def __init__(self, stack: ExitStack, folder: Path, valkey: Valkey) -> None:
        self._folder = folder
        self._stack = stack
        self.network = stack.enter_context(two_machines(valkey.port))
        self.a, self.b = self.network.machines
        s3 = urlsplit(stack.enter_context(moto()))
        assert s3.port
        way = stack.enter_context(TcpProxy(s3.port, host=self.network.hub))
        self.sources: dict[str, Simulator] = {"hq": SimulatedXivo(), "branch": SimulatedImagicle()}
        for simulator in self.sources.values():
            simulator.host = self.network.hub
            stack.enter_context(simulator)
        self.archive = new_bucket(f"http://{self.network.hub}:{way.port}", versioned=True)
        self.sites = {machine.name: self._site(machine) for machine in self.network.machines}
        site = self._site(self.a, broker=f"127.0.0.1:{valkey.port}")
        settings = load(site.config, vendor_keys(), site.environ)
        self._client = Celery("client", set_as_current=False)
        self._client.conf.update(celery_settings(settings, datetime.now(UTC)))
        stack.enter_context(self._client)

    def _site(self, machine: Machine, broker: str | None = None) -> Site:
        folder = self._folder / (machine.name if broker is None else "client")
        folder.mkdir()
        extra = {name: {"max_connections": cap, "settle": "1s"} for name, cap in CAPS.items()}
        url = f"redis://{broker or machine.broker}/0"
        site = Site(folder, self.archive, self.sources, {}, extra, broker=url, runtime={"processes": 4})
        site.write()
        return site

    def log(self, machine: Machine) -> Path:
        return self._folder / f"{machine.name}.log"

    def said(self, machine: Machine, event: str) -> int:
        """Count an event in the log of a machine's worker."""
        return self.log(machine).read_text().count(f'"{event}"')

    def start(self, machine: Machine) -> "Callable[[], int]":
        """Start the machine's worker, wait until it takes work, and return what stops it."""
        site = self.sites[machine.name]
        environ = launch.environment(site.config, os.environ) | site.environ
        process = machine.start([sys.executable, "-P", "-m", "tasks.launch", "worker"], environ, self.log(machine))
        wait_for(lambda: self.said(machine, "worker_started"), f"the worker on {machine.name} takes work")

        def stop() -> int:
            process.terminate()
            return process.wait(60)

        return stop

    def poll(self) -> None:
        """Ask for a poll of each source."""
        for name in self.sources:
            self._client.send_task(names.POLL, (name,))

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, and ask for polls now and then, as the schedule does: a flush or a machine cut off takes some along."""
        polled = 0.0

        def asked() -> bool:
            nonlocal polled
            if time.monotonic() > polled + _POLL_EVERY:
                polled = time.monotonic()
                self.poll()
            return condition()

        wait_for(asked, what, patience=90)

    def settled(self) -> bool:
        return self.held() == self.finished()

    def finished(self) -> int:
        return sum(len(simulator.finished()) for simulator in self.sources.values())

    def held(self) -> int:
        """Count the sidecars."""
        return sum(key.endswith(".json") for key in self.sites["a"].listing())


def test_caps_hold_over_two_machines_one_of_which_is_cut_off(tmp_path: Path, valkey: Valkey) -> None:
    """With a flush in the middle: never a request more than the caps say, everything held once, and both work again."""
    valkey.flush()
    with ExitStack() as stack:
        company = Company(stack, tmp_path, valkey)
        hq = company.sources["hq"]
        for name, simulator in company.sources.items():
            calls(simulator, 0, FIRST[name])
            simulator.fault("linger", purpose="any")  # so that requests made together are seen together
        stuck = hq.fault("stall", times=CAPS["hq"])
        hq.faults.reverse()
        valkey.nobody_in_flight(company.archive.namespace)
        stop = {"a": company.start(company.a)}
        company.poll()
        wait_for(
            lambda: stuck.times == 0 and hq.at_once == CAPS["hq"], "machine a hangs in as many transfers as it may"
        )

        stop["b"] = company.start(company.b)
        company.a.cut_off()
        valkey.flush()  # now nobody but machine a knows of its three requests
        company.wait_for(lambda: company.said(company.a, "permit_lost") > 0, "machine a has ended its requests itself")
        company.wait_for(lambda: hq.count("media") > CAPS["hq"] and company.held() > 60, "machine b works")
        company.a.reconnect()
        valkey.flush()
        company.wait_for(company.settled, "all is held")

        assert stop["b"]() == 0
        for name, simulator in company.sources.items():
            calls(simulator, FIRST[name], LATER)
        company.wait_for(company.settled, "machine a works again")
        assert stop["a"]() == 0

        assert {name: s.most_at_once for name, s in company.sources.items()} == CAPS
        versions = eyes(company.archive).get_paginator("list_object_versions").paginate(Bucket=company.archive.bucket)
        keys = [
            found["Key"] for page in versions for found in page.get("Versions", []) if "/probe/" not in found["Key"]
        ]
        assert len(keys) == len(set(keys)) == 2 * company.finished()
        for name, simulator in company.sources.items():
            for call in simulator.finished():
                assert company.sites["a"].sidecar(name, call)["recording_id"] == call.id
