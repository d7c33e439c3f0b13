"""What `callvault up` puts together, and the chores of its supervisor."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import signals

from config.clock import SystemClock
from storage.state import StateUnavailable
from storage.state_redis import RedisState
from tasks import embedded, launch, up
from tasks.app import app
from tasks.broker import BrokerError, with_broker
from tasks.embedded import EmbeddedError, EmbeddedValkey, address
from tasks.liveness import answer, sing
from tasks.roster import enrol
from tasks.supervisor import Child
from tasks.up import BrokerKeeper, CanaryWatch, run_up
from tests.support.clock import FakeClock
from tests.support.settings import NOBODY, settings
from tests.support.valkey import Valkey
from tests.support.waiting import wait_for

CONFIG = Path("callvault.toml")


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let `up` start two children that only say that they are there; return the folder in which they do."""
    script = (
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1], sys.argv[2]).write_text(os.environ['CALLVAULT_CONFIG'])\n"
        "time.sleep(600)"
    )
    monkeypatch.setattr(launch, "command", lambda role: [sys.executable, "-c", script, str(tmp_path), role])
    return tmp_path


def when(condition: Callable[[], object], what: str) -> threading.Thread:
    """Send this process a SIGTERM as soon as something is the case."""

    def wait() -> None:
        try:
            wait_for(condition, what)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_up_runs_worker_and_scheduler_with_an_embedded_broker(idle: Path) -> None:
    """Without [broker] one is started in state_dir; both children get the configuration; SIGTERM ends all with 0."""
    told = settings(idle / "state", url=None)
    found: list[str | None] = []

    def both_run() -> bool:
        found.append(address(idle / "state"))
        return all((idle / role).exists() and (idle / role).read_text() for role in ("worker", "beat"))

    thread = when(both_run, "worker and beat run")
    assert run_up(told, CONFIG) == 0
    thread.join()
    assert found[-1] is not None, "the broker ran beside them"
    assert address(idle / "state") is None, "and was stopped"
    assert {(idle / role).read_text() for role in ("worker", "beat")} == {str(CONFIG.absolute())}


def test_only_the_very_first_start_grants_permits_at_once(idle: Path) -> None:
    """Where no broker ran before no worker can have a request open; at later starts one may be left over."""
    told = settings(idle / "state", url=None)
    granted: list[str | None] = []

    async def asked(url: str) -> str | None:
        state = RedisState(url, told.archive.namespace, SystemClock())
        try:
            return await state.acquire("hq", 1)
        finally:
            await state.aclose()

    def worker_runs() -> bool:
        if not (idle / "worker").exists():
            return False
        url = address(idle / "state")
        assert url is not None
        granted.append(asyncio.run(asked(url)))
        return True

    for _ in range(2):
        (idle / "worker").unlink(missing_ok=True)
        thread = when(worker_runs, "the worker runs")
        assert run_up(told, CONFIG) == 0
        thread.join()
    assert granted[0] is not None
    assert granted[1] is None


def test_up_with_a_broker_of_ones_own_starts_none(idle: Path, valkey: Valkey) -> None:
    """With [broker] nothing is started in state_dir."""
    thread = when((idle / "worker").exists, "the worker runs")
    assert run_up(settings(idle / "state", url=valkey.url), CONFIG) == 0
    thread.join()
    assert not (idle / "state").exists()


def test_up_refuses_a_broker_that_cannot_serve(idle: Path) -> None:
    """Nothing is started then."""
    with pytest.raises(BrokerError, match="cluster"):
        run_up(settings(idle, url="redis+cluster://h/0"), CONFIG)
    assert not (idle / "worker").exists()


def test_a_stop_while_the_broker_starts_is_heard(idle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that reads a large file at its start does not delay a stop."""
    silent = idle / "silent"
    silent.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    silent.chmod(0o700)
    monkeypatch.setattr(embedded, "server_binary", lambda: silent)
    thread = when((idle / "state" / "valkey" / "valkey.conf").exists, "the broker is being started")
    assert run_up(settings(idle / "state", url=None), CONFIG) == 0
    thread.join()
    assert not (idle / "worker").exists()


def test_the_embedded_broker_is_started_again(tmp_path: Path) -> None:
    """A look finds it dead and starts it; a look that finds it alive does nothing."""
    with EmbeddedValkey(tmp_path) as valkey:
        keeper = BrokerKeeper(valkey)
        process = valkey._process
        keeper(0.0)
        assert valkey._process is process
        assert process is not None
        process.kill()
        wait_for(lambda: not valkey.alive(), "the broker is dead")
        keeper(1.0)
        assert valkey.alive()


def test_a_broker_that_does_not_come_back_is_tried_again_later() -> None:
    """The supervisor goes on, so that a stop is still heard."""
    tries: list[float] = []

    class Dead:
        def alive(self) -> bool:
            return False

        def start(self, patience: float) -> None:
            tries.append(patience)
            raise EmbeddedError("no space left on device")

    keeper = BrokerKeeper(Dead())  # type: ignore[arg-type]  # the two methods it needs
    keeper(0.0)
    keeper(1.0)
    assert len(tries) == 2


class Restarts(Child):
    def __init__(self) -> None:
        super().__init__("child", (), {})
        self.at: list[float] = []

    def restart(self, now: float) -> None:
        self.at.append(now)


class Listening:
    """A watch over two children, with a canary and a clock that the test moves."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.song: datetime | None = None
        self.away = False
        self.asked = 0
        self.children = [Restarts(), Restarts()]
        self.watch = CanaryWatch(self.children, self.listen, clock)

    def listen(self) -> datetime | None:
        self.asked += 1
        if self.away:
            raise StateUnavailable("away")
        return self.song

    def look_after(self, seconds: float) -> int:
        """Return how many restarts there have been once so much more time has passed."""
        self.clock.advance(seconds)
        self.watch(self.clock.monotonic())
        assert self.children[0].at == self.children[1].at, "a scheduler that sends no canary may be the cause"
        return len(self.children[0].at)


@pytest.fixture
def listening(clock: FakeClock) -> Listening:
    """Return a watch over two children."""
    return Listening(clock)


def test_a_worker_that_consumes_nothing_is_restarted(listening: Listening) -> None:
    """Five minutes without a canary, and it gets five more to come up before the next restart."""
    assert listening.look_after(0) == 0
    assert listening.look_after(299) == 0
    assert listening.look_after(31) == 1
    assert listening.look_after(290) == 1
    assert listening.look_after(31) == 2


def test_a_worker_that_sings_is_left_alone(listening: Listening) -> None:
    """Each canary starts the five minutes anew; one lost with the state's data does not shorten them."""
    for _ in range(10):
        listening.song = listening.clock.now()
        assert listening.look_after(290) == 0
    listening.song = None
    assert listening.look_after(5) == 0


def test_a_broker_that_is_away_is_not_the_worker_s_fault(listening: Listening) -> None:
    """While the state cannot be asked nobody is restarted, and afterwards the worker gets its time."""
    listening.away = True
    for _ in range(10):
        assert listening.look_after(120) == 0
    listening.away = False
    assert listening.look_after(290) == 0
    assert listening.look_after(31) == 1


def test_the_canary_is_looked_at_twice_a_minute(listening: Listening) -> None:
    """The looks of the supervisor are many, questions to the broker few."""
    for _ in range(300):
        listening.look_after(0.2)
    assert 2 <= listening.asked <= 3


def test_the_watch_hears_the_canary_and_its_own_worker(tmp_path: Path, valkey: Valkey, clock: FakeClock) -> None:
    """The older sign counts: another machine's canary hides neither a silent worker nor one that lost a queue."""
    valkey.flush()
    told = with_broker(settings(tmp_path, url=valkey.url))
    sang = clock.now()

    def noting(note: Callable[[RedisState], Awaitable[None]]) -> None:
        async def writing() -> None:
            state = RedisState(valkey.url, told.archive.namespace, clock)
            await note(state)
            await state.aclose()

        asyncio.run(writing())

    def sign() -> datetime | None:
        return asyncio.run(up.last_sign(told, os.getpid()))

    assert sign() is None
    noting(lambda state: sing(state, clock))
    assert sign() == sang
    place = enrol(told, "w@here", clock.now())
    other = enrol(told.model_copy(), "other@here", clock.now())
    assert sign() is None, "it was called, and has not answered yet"
    clock.advance(60)
    for worker in (place.worker, other.worker):
        noting(lambda state, worker=worker: answer(state, clock, worker.id))  # type: ignore[misc]
    assert sign() == sang
    noting(lambda state: sing(state, clock))
    assert sign() == clock.now()
    noting(lambda state: answer(state, clock, place.worker.id, "", ["archive"]))
    assert sign() is None
    assert asyncio.run(up.last_sign(told, 1)) == clock.now(), "the workers of others are the business of others"
    place.leave()
    other.leave()
    assert timedelta(minutes=5) == up.SILENT


def test_a_roster_that_cannot_be_read_does_not_end_up(
    tmp_path: Path, valkey: Valkey, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another user's worker may lie there: then the canary is heard alone."""

    def refused(_: object) -> list[object]:
        raise PermissionError(13, "Permission denied", "workers")

    valkey.flush()
    monkeypatch.setattr(up, "at_work", refused)
    told = with_broker(settings(tmp_path, url=valkey.url))

    async def singing() -> None:
        state = RedisState(valkey.url, told.archive.namespace, clock)
        await sing(state, clock)
        await state.aclose()

    asyncio.run(singing())
    assert asyncio.run(up.last_sign(told, os.getpid())) == clock.now()


def test_a_broker_that_takes_no_calls_is_not_the_worker_s_fault(tmp_path: Path, valkey: Valkey) -> None:
    """It counts as a state that is away."""
    told = settings(tmp_path, url=NOBODY, state_url=valkey.url)
    with pytest.raises(StateUnavailable, match="takes no calls"):
        asyncio.run(up.last_sign(told, None))


def test_launch_hands_celery_its_role_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker and scheduler are Celery's own programs; the exit code that a worker leaves behind is passed on."""
    ran: list[list[str]] = []

    def start(argv: list[str]) -> None:
        ran.append(argv)
        if argv[1] == "worker":
            signals.celeryd_after_setup.send("worker@here", instance=SimpleNamespace(exitcode=70), conf=None)

    monkeypatch.setattr(app, "start", start)
    assert launch.run("worker", ["--pool", "solo"]) == 70
    assert launch.run("beat") == 0
    assert ran[0][:2] == ["--quiet", "worker"]
    assert ran[0][-2:] == ["--pool", "solo"]
    assert ran[1] == ["--quiet", "beat"]


def test_launched_children_find_this_code_and_this_configuration() -> None:
    """The working directory is not searched for modules; what PYTHONPATH named is kept."""
    assert launch.command("worker")[1:] == ["-P", "-m", "tasks.launch", "worker"]
    environ = launch.environment(CONFIG, {"PYTHONPATH": "/elsewhere", "HOME": "/home/op"})
    assert environ["PYTHONPATH"] == os.pathsep.join([str(Path(launch.__file__).parents[1]), "/elsewhere"])
    assert environ["CALLVAULT_CONFIG"] == str(CONFIG.absolute())
    assert environ["HOME"] == "/home/op"
