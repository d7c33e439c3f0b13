"""Keeps child processes running and stops them in time. What the children are is `tasks.up`.

One loop, five looks a second, no threads: a child that died is started again, soon at first and then less soon;
a signal ends the loop, and whatever has not stopped by then is killed.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from config.events import Event
from config.logs import get_logger
from tasks.leash import leashed

STOP_PATIENCE = 20.0
"""Seconds for children to end by themselves: twice what a pool process may take for aborting its uploads."""
_LOOK_EVERY = 0.2
_LONGEST_WAIT = 60.0  # seconds before a child that keeps dying is started again
_STEADY = 60.0  # seconds after which a child counts as having come up

log = get_logger()


class Child:
    """One process that should always be there."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._due = 0.0
        self._early_deaths = 0
        self._kill_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while it is not running."""
        return self._process.pid if self._process else None

    def tend(self, now: float) -> None:
        """Do what is due: start it, notice its death, or kill it where it overstays a restart."""
        if self._process is None:
            if now >= self._due:
                self._start(now)
        elif (code := self._process.poll()) is not None:
            self._mourn(now, code)
        elif self._kill_at is not None and now >= self._kill_at:
            self._process.kill()

    def restart(self, now: float) -> None:
        """Ask it to end; `tend` starts it again."""
        if self._process is not None:
            self._process.terminate()
            self._kill_at = now + STOP_PATIENCE

    def uptime(self, now: float) -> float:
        """Return for how many seconds it has been running; 0 while it is not."""
        return now - self._started if self._process else 0.0

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL; the processes of a worker's pool go with it."""
        if self._process is not None:
            self._process.kill()

    def gone(self) -> bool:
        """Tell whether it has ended."""
        return self._process is None or self._process.poll() is not None

    def _start(self, now: float) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the commands are our own
            leashed(*self._command),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor alone
        )
        self._started, self._kill_at = now, None
        log.info(Event.CHILD_STARTED, child=self.name, pid=self._process.pid)

    def _mourn(self, now: float, code: int) -> None:
        self._early_deaths = 0 if self.uptime(now) > _STEADY else self._early_deaths + 1
        wait = min(2.0**self._early_deaths, _LONGEST_WAIT)
        log.error(Event.CHILD_DIED, child=self.name, exit_code=code, again_in_seconds=wait)
        self._process, self._due = None, now + wait


class Supervisor:
    """Looks after children until a signal comes. `chores` are called at every look with the steady clock's time."""

    def __init__(
        self,
        children: Sequence[Child],
        signals: Sequence[int],
        chores: Sequence[Callable[[float], None]] = (),
        *,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._children = children
        self._signals = signals
        self._chores = chores
        self._monotonic = monotonic
        self._pause = pause

    def run(self) -> None:
        """Return once a signal came and all children have ended; a second signal kills them."""
        while not self._signals:
            now = self._monotonic()
            for chore in self._chores:
                chore(now)
            for child in self._children:
                child.tend(now)
            self._pause(_LOOK_EVERY)
        self.stop()

    def stop(self) -> None:
        """End all children, in at most `STOP_PATIENCE` seconds."""
        log.info(Event.STOPPING, signal=signal.Signals(self._signals[0]).name)
        for child in self._children:
            child.ask_to_stop()
        ends = self._monotonic() + STOP_PATIENCE
        while not all(child.gone() for child in self._children):
            if len(self._signals) > 1 or self._monotonic() > ends:
                for child in self._children:
                    child.kill()
            self._pause(_LOOK_EVERY)


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Note SIGTERM and SIGINT in the list, in the order they come, instead of ending this process."""
    heard: list[int] = []

    def note(number: int, _: object) -> None:
        heard.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
