"""Two machines for tests: workers on two addresses, whose way to the broker can be cut while all else goes on.

Where this user may make them they are network namespaces, each with a cable for phone systems and bucket and one
for the broker that can be pulled. Elsewhere they are two loopback addresses, with a proxy each on the way to the
broker that holds back everything. Both come to the same for a worker: what it sends gets no answer, and nothing is
closed.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.support.tcp_proxy import TcpProxy


class Machine(Protocol):
    """Where a worker runs."""

    name: str
    broker: str
    """`host:port` at which it finds the broker."""

    def start(self, command: Sequence[str], environ: Mapping[str, str], output: Path) -> "subprocess.Popen[bytes]":
        """Start a process on this machine; it is killed at the end, if it still runs."""
        ...

    def cut_off(self) -> None:
        """Let nothing through between this machine and the broker, and close nothing."""
        ...

    def reconnect(self) -> None: ...


@dataclass
class Network:
    """What machines share."""

    hub: str
    """The address that phone systems and bucket must listen on."""
    machines: tuple[Machine, Machine]
    kind: str


@contextmanager
def two_machines(broker_port: int) -> Iterator[Network]:
    """Make two machines for a broker on this port of the loopback."""
    with ExitStack() as stack:
        number = _claimed(stack) if os.geteuid() == 0 and shutil.which("ip") else None
        yield _on_loopback(stack, broker_port) if number is None else _in_namespaces(stack, broker_port, number)


@dataclass
class _Processes:
    prefix: tuple[str, ...] = ()
    started: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self, command: Sequence[str], environ: Mapping[str, str], output: Path) -> "subprocess.Popen[bytes]":
        with output.open("ab") as log:
            process = subprocess.Popen(
                [*self.prefix, *command], env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


# two loopback addresses


@dataclass
class _Loopback(_Processes):
    name: str = ""
    broker: str = ""
    proxy: TcpProxy = field(kw_only=True)

    def cut_off(self) -> None:
        self.proxy.mode = "hold"

    def reconnect(self) -> None:
        self.proxy.mode = "pass"


def _on_loopback(stack: ExitStack, broker_port: int) -> Network:
    made = []
    for name, address in (("a", "127.0.0.2"), ("b", "127.0.0.3")):
        proxy = stack.enter_context(TcpProxy(broker_port, host=address))
        machine = _Loopback(name=name, broker=f"{address}:{proxy.port}", proxy=proxy)
        stack.callback(machine.end)
        made.append(machine)
    return Network("127.0.0.1", (made[0], made[1]), "loopback addresses")


# two network namespaces


@dataclass
class _Namespace(_Processes):
    name: str = ""
    broker: str = ""
    cable: str = ""

    def cut_off(self) -> None:
        _ip(f"link set {self.cable} down")

    def reconnect(self) -> None:
        _ip(f"link set {self.cable} up")


def _in_namespaces(stack: ExitStack, broker_port: int, number: int) -> Network:
    hub, broker = f"10.{number}.0.1", f"10.{number}.0.2"
    proxy = stack.enter_context(TcpProxy(broker_port, host=broker))  # the broker itself listens on the loopback alone
    made = []
    for turn, name in enumerate(("a", "b"), start=1):
        space = f"callvault-{number}{name}"
        stack.callback(_ip, f"netns del {space}", check=False)
        if turn > 1:
            _ip(f"netns add {space}")
        _ip(f"-n {space} link set lo up")
        for cable, subnet, target in (("eth0", 10 * turn, hub), ("eth1", 10 * turn + 1, broker)):
            here, there = f"cv{number}{cable}{turn}", f"10.{number}.{subnet}"
            _ip(f"link add {here} type veth peer name {cable} netns {space}")
            stack.callback(_ip, f"link del {here}", check=False)
            _ip(f"addr add {there}.1/24 dev {here}")
            _ip(f"link set {here} up")
            _ip(f"-n {space} addr add {there}.2/24 dev {cable}")
            _ip(f"-n {space} link set {cable} up")
            _ip(f"-n {space} route add {target} via {there}.1")
        machine = _Namespace(
            prefix=("ip", "netns", "exec", space),
            name=name,
            broker=f"{broker}:{proxy.port}",
            cable=f"cv{number}eth1{turn}",
        )
        stack.callback(machine.end)
        made.append(machine)
    return Network(hub, (made[0], made[1]), "network namespaces")


def _claimed(stack: ExitStack) -> int | None:
    """Return the number of a network that is ours from now on; None where none can be had."""
    for number in range(200, 250):
        if not _ip(f"netns add callvault-{number}a", check=False):
            if Path(f"/run/netns/callvault-{number}a").exists():
                continue  # another test process has it
            return None
        for last in (1, 2):
            stack.callback(_ip, f"addr del 10.{number}.0.{last}/32 dev lo", check=False)
            _ip(f"addr add 10.{number}.0.{last}/32 dev lo")
        return number
    return None


def _ip(command: str, *, check: bool = True) -> bool:
    done = subprocess.run(["ip", *command.split()], check=False, capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"ip {command}: {done.stderr}"
    return done.returncode == 0
