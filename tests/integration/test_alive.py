"""Alive means consuming: workers that answer pings and do no work are found out, one by one.

Real workers, and `health` in the test process, whose clock is four minutes ahead: whatever a worker did before is
then too long ago to count, and only what it does when it is asked does.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from storage.memory import MemoryStore
from storage.state_redis import RedisState
from tasks import calling, names
from tasks.broker import state_url
from tasks.celery_settings import celery_settings, own_queue
from tasks.health import Check, health
from tasks.roster import Worker, at_work
from tests.support.clock import FakeClock
from tests.support.installation import Installation, saying_no, sung
from tests.support.lingering import BLOCK, LINGER
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_for

AHEAD = timedelta(minutes=4)
WORKER = ("-m", "tests.support.lingering", "--concurrency", "2", "--without-mingle", "--without-gossip")


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """Serve bucket and phone system: both say no at once."""
    with saying_no() as url:
        yield url


MakeMachine = Callable[[str], Installation]


@pytest.fixture
def make_machine(tmp_path: Path, refusing: str, valkey: Valkey) -> Iterator[MakeMachine]:
    """Return a function that sets up a machine, with a `state_dir` of its own, of one and the same installation."""
    valkey.flush()
    machines: list[Installation] = []

    def making(name: str) -> Installation:
        (tmp_path / name).mkdir()
        machines.append(Installation(tmp_path / name, refusing, valkey))
        return machines[-1]

    yield making
    for machine in machines:
        machine.end()


@pytest.fixture
def machine(make_machine: MakeMachine) -> Installation:
    """Return a machine."""
    return make_machine("one")


@pytest.fixture
def client(machine: Installation) -> Iterator[Celery]:
    """Return an application that sends to the installation's queues, and pings."""
    client = Celery("client", set_as_current=False)
    client.conf.update(celery_settings(machine.settings, datetime.now(UTC)))
    with client:
        yield client


def start(machine: Installation, name: str = "w") -> Worker:
    """Start a worker and wait until it takes work."""
    before = at_work(machine.settings)
    machine.start(*WORKER, "--hostname", f"{name}@%h")
    wait_for(lambda: machine.log.read_text().count('"worker_started"') > len(before), "the worker is ready")
    (worker,) = [found for found in at_work(machine.settings) if found not in before]
    return worker


def ask(machine: Installation, patience: float, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return what `health` says of the workers of this machine, four minutes from now."""
    monkeypatch.setattr(calling, "PATIENCE", patience)
    told, clock = machine.settings, FakeClock(datetime.now(UTC) + AHEAD)

    async def asking() -> list[Check]:
        state = RedisState(state_url(told), told.archive.namespace, clock)
        try:
            return await health(told, state, MemoryStore(clock=clock), clock)
        finally:
            await state.aclose()

    return next(check for check in asyncio.run(asking()) if check.name == "worker")


Look = Callable[[Installation], Check]


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Return a function that expects an answer, and gives a slow machine the time for it."""
    return lambda machine: ask(machine, PATIENCE, monkeypatch)


@pytest.fixture
def ill(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Return a function that expects none."""
    return lambda machine: ask(machine, 1.0, monkeypatch)


def pinged(client: Celery, worker: Worker) -> bool:
    """Tell whether the worker answers `inspect ping`."""
    return bool(client.control.ping(destination=[worker.node], timeout=2))


def pool(worker: Worker) -> list[psutil.Process]:
    """Return the processes of its pool."""
    return psutil.Process(worker.pid).children()


def test_a_worker_answers_when_it_is_called(machine: Installation, well: Look, valkey: Valkey) -> None:
    """Nothing has been sent to it before, and of the call nothing stays in the broker."""
    worker = start(machine)
    check = well(machine)
    assert check.ok, check
    assert check.detail == f"{worker.node} answered at once"
    with redis.Redis(port=valkey.port) as raw:
        named = [key.decode() for key in raw.scan_iter() if worker.id.encode() in key + raw.dump(key)]
    assert named == [f"callvault:{machine.namespace}:stash:answer:{worker.id}"]


def test_no_worker_here_is_no_fault_of_this_machine(
    machine: Installation, make_machine: MakeMachine, well: Look
) -> None:
    """A machine with a scheduler only, or an operator's, speaks for the installation as a whole."""
    start(machine)
    assert well(make_machine("two")) == Check("worker", ok=True, detail="none runs on this machine")


@pytest.mark.parametrize("frozen", ["a blocked loop", "stopped processes"])
def test_a_worker_whose_pool_is_frozen_is_found_out(
    machine: Installation, make_machine: MakeMachine, client: Celery, well: Look, ill: Look, frozen: str
) -> None:
    """Its main process answers pings all the while; another worker of the installation that is well hides nothing."""
    worker = start(machine)
    if frozen == "a blocked loop":
        for _ in range(2):
            client.send_task(BLOCK, (str(machine.folder),))
        wait_for(lambda: len(machine.diary("began")) == 2, "both processes are blocked")
    else:
        for process in pool(worker):
            process.suspend()
    twin = make_machine("two")
    start(twin, "twin")
    for _ in range(3):  # the worker that is frozen may take two
        client.send_task(names.CANARY)
    wait_for(lambda: sung(machine.environ["BROKER"], machine.namespace), "the installation's canary sings")
    assert pinged(client, worker)
    check = ill(machine)
    assert not check.ok
    assert f"{worker.node} runs and has taken no message for 2" in check.detail
    assert well(twin).ok


def test_the_silent_one_of_two_is_named(machine: Installation, well: Look, ill: Look) -> None:
    """Two workers on one machine answer for themselves."""
    first, second = start(machine, "first"), start(machine, "second")
    assert first.id != second.id
    check = well(machine)
    assert check.ok, check
    for process in pool(first):
        process.suspend()
    check = ill(machine)
    assert not check.ok
    assert f"{first.node} runs and has taken no message for 2" in check.detail
    assert f"{second.node} answered at once" in check.detail


def test_a_worker_that_lost_its_consumers_is_found_out(
    machine: Installation, client: Celery, well: Look, ill: Look
) -> None:
    """One shared queue that is not heard is enough, and so is its own, which leaves nothing heard at all."""
    worker = start(machine)
    client.control.cancel_consumer(names.ARCHIVE_QUEUE, destination=[worker.node], reply=True)
    check = well(machine)
    assert (check.ok, check.detail) == (False, f"{worker.node} runs and takes nothing from archive: start it anew")
    for queue in (names.DEFAULT_QUEUE, names.POLL_QUEUE, own_queue(machine.settings, worker.id).name):
        client.control.cancel_consumer(queue, destination=[worker.node], reply=True)
    assert pinged(client, worker)
    assert not ill(machine).ok
    for queue in names.QUEUES:
        client.control.add_consumer(queue, destination=[worker.node], reply=True)


def test_calls_to_a_silent_worker_do_not_pile_up(machine: Installation, ill: Look, valkey: Valkey) -> None:
    """However often it is asked, one call waits."""
    worker = start(machine)
    for process in pool(worker):
        process.suspend()
    for _ in range(5):
        assert not ill(machine).ok
    with valkey.client() as asked:
        assert asked.llen(f"callvault:{machine.namespace}:{own_queue(machine.settings, worker.id).name}") <= 1


def test_a_worker_in_long_batches_is_well(machine: Installation, client: Celery, well: Look) -> None:
    """All its processes are busy and the call waits; the batches sing instead."""
    worker = start(machine)
    for _ in range(2):
        client.send_task(LINGER, (str(machine.folder),))
    wait_for(lambda: len(machine.diary("began")) == 2, "both processes are busy")
    check = well(machine)
    assert check.ok, check
    assert check.detail == f"{worker.node} answered at once"


def test_a_killed_worker_is_forgotten_and_the_next_takes_its_place(
    machine: Installation, client: Celery, well: Look
) -> None:
    """Its pool may be stuck and outlive it: neither makes `health` fail, nor does it lend the dead one a life."""
    worker = start(machine)
    client.send_task(BLOCK, (str(machine.folder),))
    (stuck,) = [psutil.Process(int(pid)) for pid in wait_for(lambda: machine.diary("began"), "a process is stuck")]
    os.kill(worker.pid, signal.SIGKILL)
    machine.processes[0].wait()
    assert stuck.is_running()
    assert well(machine).detail == "none runs on this machine"
    machine.log.write_text("")
    again = start(machine)
    assert (again.id, again.pid == worker.pid) == (worker.id, False)
    check = well(machine)
    assert check.ok, check
    (machine.folder / "enough").touch()


def test_an_orderly_end_is_no_silence(machine: Installation, well: Look) -> None:
    """A worker that was stopped is not missed."""
    start(machine)
    machine.processes[0].terminate()
    assert machine.processes[0].wait(25) == 0
    assert well(machine).detail == "none runs on this machine"
