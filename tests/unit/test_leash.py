"""Programs that end when the process that started them does."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks import leash
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Keep `main` from replacing the test's own process, and from leashing it."""
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: ran.append([program, *arguments]))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: type("Libc", (), {"prctl": staticmethod(lambda *_: 0)}))
    return ran


def test_the_program_is_run_in_place(ran: list[list[str]]) -> None:
    """The process becomes the program, so that its id and signals are the program's."""
    leash.main([str(os.getppid()), "/bin/true", "x"])
    assert ran == [["/bin/true", "/bin/true", "x"]]


def test_nothing_is_run_for_a_parent_that_died_meanwhile(ran: list[list[str]]) -> None:
    """The leash comes too late then: nobody would end the program."""
    leash.main(["1" if os.getppid() != 1 else "2", "/bin/true"])
    assert ran == []


def test_elsewhere_than_on_linux_the_program_simply_runs(ran: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other kernels make no such promise."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    leash.main([str(os.getppid()), "/bin/true"])
    assert len(ran) == 1


def test_a_leashed_program_ends_with_its_killed_parent() -> None:
    """SIGKILL to the parent, which cannot tidy up, ends the program."""
    script = (
        "import subprocess, sys; from tasks.leash import leashed\n"
        "p = subprocess.Popen(leashed('/bin/sleep', '600')); print(p.pid, flush=True); p.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    program = psutil.Process(int(parent.stdout.readline()))
    wait_for(lambda: program.name() == "sleep", "the program runs")
    parent.kill()
    parent.communicate()
    wait_for(lambda: not program.is_running() or program.status() == psutil.STATUS_ZOMBIE, "the program is gone")


def test_a_leashed_program_gets_signals_as_itself() -> None:
    """A SIGTERM to the child is the program's."""
    child = subprocess.Popen(leash.leashed("/bin/sleep", "600"))
    wait_for(lambda: psutil.Process(child.pid).name() == "sleep", "the program runs")
    child.terminate()
    assert child.wait() == -signal.SIGTERM
