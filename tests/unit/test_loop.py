"""The one event loop of a worker process: kept, bounded, and cut short cleanly."""

import asyncio
import contextvars
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tasks.loop import DEADLINE, GRACE, Loop, Unfinished
from tasks.stopping import StopFlag

_STORY = contextvars.ContextVar("_STORY", default="")


@pytest.fixture
def flag() -> Iterator[StopFlag]:
    """Return a flag that nobody armed."""
    flag = StopFlag()
    yield flag
    flag.close()


@pytest.fixture
def make(flag: StopFlag) -> Iterator[Callable[..., Loop]]:
    """Make loops with limits of the test's own, and close them."""
    made: list[Loop] = []

    def make(**limits: float) -> Loop:
        made.append(Loop(flag, **limits))
        return made[-1]

    yield make
    for loop in made:
        loop.close()


@pytest.fixture
def loop(make: Callable[..., Loop]) -> Loop:
    """Return a loop with the limits of a worker."""
    return make()


class Job:
    """Work that never ends by itself, and notes whether it was cancelled and could clean up."""

    def __init__(self, cleaning: float = 0.0) -> None:
        self.cleaning = cleaning
        self.told: list[str] = []

    async def __call__(self) -> None:
        self.told.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self.cleaning)  # cleaning up awaits, as aborting an upload does
            self.told.append("cleaned")


async def _which_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_all_tasks_share_one_loop(loop: Loop) -> None:
    """Connections made by one task serve the next, because the loop stays."""
    assert loop.run(_which_loop) is loop.run(_which_loop)


def test_the_loop_is_uvloop(loop: Loop) -> None:
    """The fast loop is used where it is installed."""
    assert type(loop.run(_which_loop)).__module__.startswith("uvloop")


def test_without_uvloop_the_standard_loop_serves(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without uvloop works all the same."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert isinstance(loop.run(_which_loop), asyncio.SelectorEventLoop)


def test_nothing_is_made_before_the_first_task(flag: StopFlag) -> None:
    """A process that forks has no loop to inherit; closing it then does nothing."""
    fresh = Loop(flag)
    assert fresh._runner is None
    fresh.close()


def test_results_and_errors_pass_through(loop: Loop) -> None:
    """The work's result is returned, and its own errors, its own time-outs too, are raised as they are."""

    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise TimeoutError("the work's own")

    assert loop.run(answer) == 42
    with pytest.raises(TimeoutError, match="the work's own"):
        loop.run(fail)


def test_each_task_sees_its_own_log_context(loop: Loop) -> None:
    """What a task bound for its log lines is seen by its coroutine, not what the first task bound."""

    async def story() -> str:
        return _STORY.get()

    for told in ("first", "second"):
        _STORY.set(told)
        assert loop.run(story) == told


def test_the_deadline_cancels_the_work_cleanly(make: Callable[..., Loop]) -> None:
    """Work that takes too long is cancelled, cleans up, and is reported as unfinished; the loop goes on."""
    loop = make(deadline=0.01)
    job = Job()
    with pytest.raises(Unfinished, match="did not end within 0 s"):
        loop.run(job)
    assert job.told == ["began", "cleaned"]
    assert loop.run(_which_loop).is_running() is False


def test_a_stopping_worker_lets_work_finish_within_the_grace(make: Callable[..., Loop], flag: StopFlag) -> None:
    """What ends soon after the stop is not cancelled."""
    loop = make(grace=30)
    flag.arm()

    async def soon() -> str:
        flag.hoist()
        await asyncio.sleep(0.01)
        return "done"

    assert loop.run(soon) == "done"


def test_a_stopping_worker_cancels_after_the_grace(make: Callable[..., Loop], flag: StopFlag) -> None:
    """What would go on for long is cancelled cleanly, long before its deadline."""
    loop = make(grace=0.01)
    flag.arm()
    flag.arm()  # a second start of the worker in this process makes no second pipe
    flag.hoist()
    job = Job()
    with pytest.raises(Unfinished, match="the worker is stopping"):
        loop.run(job)
    assert job.told == ["began", "cleaned"]


def test_a_stop_never_prolongs_a_deadline(make: Callable[..., Loop], flag: StopFlag) -> None:
    """The grace is a limit, not an extension."""
    loop = make(deadline=0.01, grace=1000)
    flag.arm()
    flag.hoist()
    with pytest.raises(Unfinished):
        loop.run(Job())


def test_a_stop_during_cleaning_up_changes_nothing(make: Callable[..., Loop], flag: StopFlag) -> None:
    """Work that is being cancelled already is left to its cleaning up."""
    loop = make(deadline=0.01)
    flag.arm()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            flag.hoist()
            await asyncio.sleep(0.05)

    with pytest.raises(Unfinished, match="did not end within"):
        loop.run(work)


def test_a_flag_nobody_armed_does_nothing(flag: StopFlag) -> None:
    """Outside a worker, such as in the scheduler, there is no pool to tell."""
    flag.hoist()
    flag.close()


def test_work_that_a_signal_tore_open_is_cleaned_up_at_the_end(flag: StopFlag) -> None:
    """SIGTERM raises SystemExit out of the loop, as in a pool process; closing then cancels what was left behind."""
    loop, job, last = Loop(flag), Job(), []

    def leave(number: int, _: object) -> None:
        sys.exit(number)

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)
        await job()

    async def close_connections() -> None:
        last.append(list(job.told))

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit):
            loop.run(work)
    finally:
        signal.signal(signal.SIGTERM, before)
    loop.close(close_connections)
    loop.close(close_connections)
    assert job.told == ["began", "cleaned"]
    assert last == [["began", "cleaned"]], "connections are closed once, after the work that uses them"


def test_a_cleaning_up_that_hangs_does_not_keep_the_process(flag: StopFlag, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process is bounded too."""
    monkeypatch.setattr("tasks.loop._WIND_UP", 0.01)
    loop = Loop(flag)
    loop.run(_which_loop)

    async def hang() -> None:
        await asyncio.Event().wait()

    loop.close(hang)
    assert loop._runner is None


def test_the_grace_fits_the_supervisor_s_patience() -> None:
    """A worker that is told to stop gets through its grace before `up` would kill it."""
    from tasks.supervisor import STOP_PATIENCE

    assert GRACE + 10 < STOP_PATIENCE < 25
    assert GRACE < DEADLINE
