"""`.ci/run`: what it calls, with which Python, and how it ends. make and apt-get are stand-ins here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"
NEEDED = ("bash", "dirname", "env", "chmod", "cat", "rm")
SERVERS = "tests/support/binaries.py"


class Machine:
    """A machine with nothing on its path but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.notes = folder / "notes"
        self.notes.touch()
        self.missing = folder / "missing"
        self.missing.touch()
        self.policy = folder / "policy-rc.d"
        for name in NEEDED:
            found = shutil.which(name)
            assert found
            (self.bin / name).symlink_to(found)

    def program(self, name: str, body: str) -> Path:
        """Put a program there that notes its call and then does `body`."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.notes}\n{body}\n')
        path.chmod(0o755)
        return path

    def python(self, name: str = "python3") -> Path:
        """Put this very Python there; which servers are missing is what the file `missing` says."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\n[ "$1" = {SERVERS} ] && exec cat {self.missing}\nexec {sys.executable} "$@"\n')
        path.chmod(0o755)
        return path

    def user(self, number: int) -> None:
        """Say who runs it."""
        self.program("id", f"echo {number}")

    def run(self) -> "subprocess.CompletedProcess[str]":
        environ = {"PATH": str(self.bin), "HOME": os.devnull, "POLICY_RC_D": str(self.policy)}
        return subprocess.run([SCRIPT], env=environ, capture_output=True, text=True, check=False, cwd="/")

    def calls(self) -> list[str]:
        return [line for line in self.notes.read_text().splitlines() if not line.startswith("id ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without Python, make and apt-get."""
    return Machine(tmp_path)


def test_it_runs_demo_and_tests_and_says_so(machine: Machine) -> None:
    """Both are made, in this order, with the Python that was found; nothing is installed."""
    python = machine.python()
    machine.program("make", "exit 0")
    machine.program("apt-get", "exit 0")
    told = machine.run()
    assert told.returncode == 0, told.stderr
    assert machine.calls() == [f"make demo PYTHON={python}", f"make test PYTHON={python}"]
    assert "== make demo" in told.stdout
    assert "== make test" in told.stdout


@pytest.mark.parametrize(("target", "calls"), [("demo", 1), ("test", 2)])
def test_it_ends_as_make_ends(machine: Machine, target: str, calls: int) -> None:
    """A failure is not swallowed, and nothing is made after it."""
    machine.python()
    machine.program("make", f'[ "$1" = {target} ] && exit 7; exit 0')
    assert machine.run().returncode == 7
    assert len(machine.calls()) == calls


def test_a_newer_python_beside_an_old_one_is_found(machine: Machine) -> None:
    """Where python3 is too old, a later name is tried."""
    machine.program("python3", "exit 1")
    newer = machine.python("python3.12")
    machine.program("make", "exit 0")
    assert machine.run().returncode == 0
    assert f"make test PYTHON={newer}" in machine.calls()


def test_what_is_missing_is_installed_where_that_is_possible(machine: Machine) -> None:
    """Without make, apt-get is asked for it, and the work goes on."""
    machine.python()
    make = machine.bin / "make"
    machine.program("apt-get", f'[ "$1" = install ] || exit 0; cat >{make} </dev/null; chmod +x {make}')
    assert machine.run().returncode == 0
    assert machine.calls() == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends python3 python3-venv make",
    ]


@pytest.mark.parametrize("there", ["python3", "make", ""])
def test_what_cannot_be_installed_is_named(machine: Machine, there: str) -> None:
    """Without apt-get, a machine that lacks something is told what, and nothing is made."""
    if there == "python3":
        machine.python()
    elif there:
        machine.program(there, "exit 0")
    told = machine.run()
    assert told.returncode == 1
    assert "Python 3.11 or newer" in told.stderr
    assert machine.calls() == []


def test_the_servers_of_the_tests_are_installed_and_then_none_may_be_skipped(machine: Machine) -> None:
    """What is missing is installed by root, no service of it started, and tests that cannot run fail from then on."""
    machine.python()
    machine.user(0)
    machine.missing.write_text("ceph-mon radosgw\n")
    machine.program("make", f'echo "servers: $TESTS_NEED_SERVERS" >>{machine.notes}')
    asked = f'{machine.policy}; echo "start? $?" >>{machine.notes}'
    machine.program("apt-get", f'[ "$1" = install ] || exit 0; {asked}; : >{machine.missing}')
    assert machine.run().returncode == 0
    assert machine.calls()[:4] == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends ceph-mon radosgw",
        "start? 101",
        f"make demo PYTHON={machine.bin / 'python3'}",
    ]
    assert machine.calls().count("servers: 1") == 2
    assert not machine.policy.exists()


@pytest.mark.parametrize("installs", [True, False])
def test_a_policy_that_was_there_stays(machine: Machine, installs: bool) -> None:
    """Somebody else's rule for starting services is neither replaced nor removed, nor is ours left when it fails."""
    machine.python()
    machine.user(0)
    machine.missing.write_text("radosgw\n")
    machine.program("make", "exit 0")
    machine.program("apt-get", f'[ "$1" = install ] || exit 0; : >{machine.missing}; exit {0 if installs else 100}')
    machine.policy.write_text("theirs")
    assert machine.run().returncode == (0 if installs else 100)
    assert machine.policy.read_text() == "theirs"
    machine.policy.unlink()
    machine.missing.write_text("radosgw\n")
    machine.run()
    assert not machine.policy.exists()


@pytest.mark.parametrize("missing", ["apt-get", "rights"])
def test_servers_that_cannot_be_installed_are_said_to_be_skipped(machine: Machine, missing: str) -> None:
    """Without apt-get, or not as root, the rest is tested all the same, and it says what is left out."""
    machine.python()
    machine.user(1000 if missing == "rights" else 0)
    machine.missing.write_text("radosgw\n")
    machine.program("make", f'echo "servers: $TESTS_NEED_SERVERS" >>{machine.notes}')
    if missing == "rights":
        machine.program("apt-get", "exit 100")
    told = machine.run()
    assert told.returncode == 0
    assert "skipped that need radosgw" in told.stdout
    assert machine.calls().count("servers: ") == 2


def test_it_is_executable_and_stops_at_the_first_error() -> None:
    """A fresh clone can run it as it is."""
    assert os.access(SCRIPT, os.X_OK)
    assert "set -euo pipefail" in SCRIPT.read_text()
