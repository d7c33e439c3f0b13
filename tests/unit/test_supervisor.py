"""Keeping children running, and ending them in time: with real processes and a clock turned by hand."""

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tasks import embedded
from tasks.supervisor import STOP_PATIENCE, Child, Supervisor, noted_signals
from tests.support.waiting import wait_for

SLEEPER = ("/bin/sleep", "600")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)",
)


@pytest.fixture
def children() -> Iterator[Callable[..., Child]]:
    """Make children, and leave none behind."""
    made: list[Child] = []

    def make(*command: str) -> Child:
        made.append(Child("child", command, dict(os.environ)))
        return made[-1]

    yield make
    for child in made:
        child.kill()
        wait_for(child.gone, "the child is gone")


def ended(child: Child) -> None:
    """Wait until the child has ended."""
    wait_for(child.gone, "the child has ended")


class Steps:
    """A steady clock and a pause for the supervisor; what happens at which pause is the test's to say."""

    def __init__(self, *events: Callable[[], object]) -> None:
        self.now = 0.0
        self._events = list(events)

    def monotonic(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self._events:
            self._events.pop(0)()
        else:
            os.sched_yield()


def test_a_child_is_started_once(children: Callable[..., Child]) -> None:
    """The first look starts it, the following leave it alone; its uptime counts."""
    child = children(*SLEEPER)
    assert child.pid is None
    assert child.gone()
    assert child.uptime(5.0) == 0
    child.tend(10.0)
    pid = child.pid
    child.tend(11.0)
    assert child.pid == pid
    assert child.uptime(15.0) == 5
    assert not child.gone()


def test_a_child_that_died_is_started_again_after_a_while(children: Callable[..., Child]) -> None:
    """A child that keeps dying is started less and less often, at least once a minute."""
    child, now = children("/bin/false"), 0.0
    waits: list[float] = []
    for _ in range(8):
        child.tend(now)
        ended(child)
        child.tend(now)
        assert child.pid is None
        died = now
        while child.pid is None:
            now += 1.0
            child.tend(now)
        waits.append(now - died)
        ended(child)
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_a_child_that_had_come_up_is_started_again_at_once(children: Callable[..., Child]) -> None:
    """Only early deaths count: one after a long life waits a second."""
    child = children("/bin/false")
    child.tend(0.0)
    ended(child)
    child.tend(0.0)
    child.tend(2.0)
    ended(child)
    child.tend(100.0)
    child.tend(100.5)
    assert child.pid is None
    child.tend(101.0)
    assert child.pid is not None


def test_a_restart_asks_first(children: Callable[..., Child]) -> None:
    """A child that is to be restarted ends by SIGTERM and comes back."""
    child = children(*SLEEPER)
    child.restart(0.0)
    assert child.pid is None, "what is not running needs no restart"
    child.tend(0.0)
    first = child.pid
    child.restart(100.0)
    ended(child)
    child.tend(100.0)
    child.tend(102.0)
    assert child.pid not in (None, first)


def test_a_restart_kills_what_does_not_end(children: Callable[..., Child], capfd: pytest.CaptureFixture[str]) -> None:
    """A child that ignores SIGTERM is killed after the patience, not before."""
    child = children(*STUBBORN)
    child.tend(0.0)
    wait_for(lambda: "deaf" in capfd.readouterr().out, "the child ignores SIGTERM")
    child.restart(0.0)
    child.tend(STOP_PATIENCE - 0.1)
    assert child.pid is not None
    assert not child.gone()
    child.tend(STOP_PATIENCE)
    ended(child)


def test_a_signal_ends_the_children(children: Callable[..., Child]) -> None:
    """The supervisor looks after its children and its chores until a signal comes, then ends all of them."""
    child, other = children(*SLEEPER), children(*SLEEPER)
    signals: list[int] = []
    looks: list[float] = []
    steps = Steps(lambda: None, lambda: signals.append(signal.SIGTERM))
    Supervisor([child, other], signals, [looks.append], monotonic=steps.monotonic, pause=steps.pause).run()
    assert child.gone()
    assert other.gone()
    assert len(looks) == 2


def test_a_second_signal_kills(children: Callable[..., Child], capfd: pytest.CaptureFixture[str]) -> None:
    """Who is in a hurry sends the signal again."""
    child = children(*STUBBORN)
    signals: list[int] = []

    def first() -> None:
        wait_for(lambda: "deaf" in capfd.readouterr().out, "the child ignores SIGTERM")
        signals.append(signal.SIGINT)

    steps = Steps(first, lambda: signals.append(signal.SIGINT), lambda: ended(child))
    Supervisor([child], signals, monotonic=steps.monotonic, pause=steps.pause).run()
    assert child.gone()
    assert steps.now < 2


def test_what_does_not_end_is_killed_in_time(children: Callable[..., Child], capfd: pytest.CaptureFixture[str]) -> None:
    """A child that ignores SIGTERM does not keep the supervisor beyond its patience."""
    child = children(*STUBBORN)
    signals: list[int] = []

    def first() -> None:
        wait_for(lambda: "deaf" in capfd.readouterr().out, "the child ignores SIGTERM")
        signals.append(signal.SIGTERM)

    def hours_pass() -> None:
        steps.now += STOP_PATIENCE

    steps = Steps(first, hours_pass, lambda: ended(child))
    Supervisor([child], signals, monotonic=steps.monotonic, pause=steps.pause).run()
    assert child.gone()


def test_a_child_that_never_started_is_no_obstacle() -> None:
    """A signal before the first look ends at once, and there is nothing to kill."""
    steps = Steps()
    child = Child("child", SLEEPER, {})
    Supervisor([child], [signal.SIGTERM], monotonic=steps.monotonic, pause=steps.pause).run()
    assert steps.now == 0
    child.kill()
    assert child.gone()


def test_children_get_no_ctrl_c_of_the_terminal(children: Callable[..., Child]) -> None:
    """Each child leads its own session, so that the supervisor alone decides who stops when."""
    child = children(*SLEEPER)
    child.tend(0.0)
    assert child.pid is not None
    assert os.getsid(child.pid) == child.pid


def test_signals_are_noted_for_a_while_only() -> None:
    """Inside the block signals end up in the list; afterwards the handlers are those from before."""
    before = signal.getsignal(signal.SIGTERM)
    with noted_signals() as heard:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert heard == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_whole_stop_fits_into_half_a_minute() -> None:
    """Children's patience plus the embedded broker's stays well under thirty seconds."""
    assert STOP_PATIENCE + embedded._STOP_PATIENCE <= 26
