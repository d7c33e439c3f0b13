"""The processes of the campaign: workers and schedulers, each behind its own way to the broker, killed and replaced.

What died is started again after a moment, as systemd or a container platform would.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from tests.chaos.ledger import Ledger
from tests.support.tcp_proxy import TcpProxy
from worker.steps import Step

ROOT = Path(__file__).parents[2]
_AGAIN = 1.0  # seconds before a dead process is replaced
_PATIENCE = 40.0


@dataclass
class Member:
    """One worker or scheduler."""

    name: str
    role: str
    proxy: TcpProxy
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    died_at: float | None = None


@dataclass
class Fleet:
    """Start with `tend`, which is to be called often; a context manager that leaves nothing running."""

    folder: Path
    environ: dict[str, str]
    broker_port: int
    ledger: Ledger
    dice: random.Random
    members: list[Member] = field(default_factory=list)
    died_at: set[Step] = field(default_factory=set)

    @property
    def orders(self) -> Path:
        return self.folder / "orders"

    @property
    def logs(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))

    def add(self, role: str) -> Member:
        """Have one more; it starts with the next `tend`."""
        member = Member(f"{role}-{len(self.members)}", role, TcpProxy(self.broker_port).start())
        self.members.append(member)
        return member

    def workers(self) -> list[Member]:
        return [m for m in self.members if m.role == "worker" and m.process is not None]

    def tend(self) -> None:
        """Start what should run and does not; note orders that were carried out."""
        now = time.monotonic()
        for member in self.members:
            if member.process is not None and member.process.poll() is not None:
                member.process, member.died_at = None, now
            due = member.died_at is None or now - member.died_at > _AGAIN
            if member.process is None and member.wanted and due:
                self._start(member)
        for done in self.orders.glob("done-*"):
            step = Step[done.name.split("-")[1]]
            self.died_at.add(step)
            self.ledger.struck("process", f"SIGKILL at step: {step.value}")
            done.unlink()

    def order(self, step: Step, *, whole_worker: bool) -> None:
        """Have the next process that reaches the step die there."""
        path = self.orders / step.name
        if not path.exists():
            fresh = self.orders / f"new-{step.name}"
            fresh.write_text("worker" if whole_worker else "child")
            fresh.rename(path)

    def steps_missed(self) -> list[Step]:
        """Return the steps at which nobody died."""
        return [step for step in Step if step not in self.died_at]

    def countermand(self) -> None:
        """Withdraw all orders."""
        for step in Step:
            (self.orders / step.name).unlink(missing_ok=True)

    def children(self, member: Member) -> list[psutil.Process]:
        """Return the pool of a worker."""
        try:
            return psutil.Process(member.process.pid).children() if member.process else []
        except psutil.NoSuchProcess:
            return []

    def strike(self, member: Member, number: signal.Signals) -> None:
        """Send a signal to a worker or scheduler itself."""
        if member.process is not None:
            self.ledger.struck("process", f"{number.name} of a {member.role}")
            member.process.send_signal(number)

    def strike_child(self, number: signal.Signals) -> psutil.Process | None:
        """Send a signal to a process of some worker's pool, and return it."""
        pools = [child for member in self.workers() for child in self.children(member)]
        if not pools:
            return None
        child = self.dice.choice(pools)
        try:
            child.send_signal(number)
        except psutil.NoSuchProcess:
            return None
        self.ledger.struck("process", f"{number.name} of a pool process")
        return child

    def stop(self, role: str | None = None) -> None:
        """End all members, or those of a role, in an orderly way; what does not end in time is killed."""
        ending = [m for m in self.members if role in (None, m.role)]
        for member in ending:
            member.wanted = False
            if member.process is not None:
                member.process.terminate()
        for member in ending:
            if member.process is not None:
                try:
                    member.process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    self.ledger.struck("process", f"SIGKILL {_PATIENCE:.0f} s after a SIGTERM")
                self._kill(member)

    def go_on(self) -> None:
        """Have all members run again."""
        for member in self.members:
            member.wanted, member.died_at = True, None

    def __enter__(self) -> Self:
        self.orders.mkdir(parents=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for member in self.members:
            self._kill(member)
            member.proxy.stop()

    def applicant(self) -> subprocess.Popen[bytes]:
        """Start a worker that is not replaced when it ends, past all proxies."""
        return self._popen("applicant", "worker", self.broker_port)

    def dismiss(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process with everything it started."""
        try:
            family = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait(_PATIENCE)

    def _start(self, member: Member) -> None:
        member.process = self._popen(member.name, member.role, member.proxy.port)

    def _popen(self, name: str, role: str, port: int) -> subprocess.Popen[bytes]:
        environ = {
            **self.environ,
            "BROKER": f"redis://127.0.0.1:{port}/0",
            "ORDERS": str(self.orders),
            "PYTHONPATH": str(ROOT),
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.chaos.victim", role], env=environ, stdout=log, stderr=log
            )

    def _kill(self, member: Member) -> None:
        process, member.process = member.process, None
        if process is not None:
            self.dismiss(process)


def environment(environ: dict[str, str], config: Path) -> dict[str, str]:
    """Return what every process of the fleet is told."""
    return {**os.environ, **environ, "CALLVAULT_CONFIG": str(config), "PYTHONWARNINGS": "ignore"}
