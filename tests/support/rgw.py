"""A real S3 server for tests: Debian's Ceph Object Gateway (RGW) on one node, everything in memory, no root needed.

A monitor, one storage daemon and the gateway, on free ports of the loopback; ready in about 12 s, 0.2 GB. `Rgw` is
one of them. `shared_rgw` is what tests use: one for all processes of a test run, which ends when the last of them
is gone, however it went. What it does otherwise than AWS is written down in `tests.support.s3.rgw_can`.
"""

import contextlib
import fcntl
import http.client
import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.binaries import need
from tests.support.valkey import free_port

BINARIES = ("ceph", "ceph-mon", "ceph-osd", "radosgw")
TEST_KEY, TEST_SECRET = "test-key", "test-secret"
"""The credentials of the user whose buckets the tests use."""
GUEST, GUEST_KEY, GUEST_SECRET = "guest", "guest-key", "guest-secret"
"""Another one, who may do nothing but what a bucket's policy grants."""

_PATIENCE = 100.0  # seconds; a start takes about 12 on an idle machine
_STARTS = 3  # a port that was free may be taken when a daemon binds it
_TAIL = 2000  # characters of each log in a failure's message
_keepers: list[subprocess.Popen[bytes]] = []  # they may outlive the test run by a moment: nobody waits for them

_CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
admin socket =
pid file =
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
mon allow pool size one = true
mon max pg per osd = 2000
[client]
# a secure connection to the monitor cannot be had without keys: the gateway would wait for one in vain
ms mon client mode = crc
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw enable usage log = false
"""


class Rgw:
    """A context manager; nothing of it stays, also when it does not come up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._gateway = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._gateway}"

    def __enter__(self) -> Self:
        for attempt in range(1, _STARTS + 1):
            try:
                self._start()
            except (_NotUp, subprocess.SubprocessError) as error:
                told = f"Ceph RGW did not come up: {error}\n{self._tails()}"
                self._end()
                if attempt == _STARTS or not isinstance(error, _NotUp):
                    raise AssertionError(told) from error
            except BaseException:
                self._end()
                raise
            else:
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self) -> None:
        self._folder.mkdir(parents=True)
        (self._folder / "mon").mkdir()
        (self._folder / "osd").mkdir()
        fsid, osd, self._gateway = str(uuid.uuid4()), str(uuid.uuid4()), free_port()
        mon_v2, mon_v1, folder = free_port(), free_port(), self._folder
        conf = _CONF.format(fsid=fsid, mon_v2=mon_v2, mon_v1=mon_v1, folder=folder, gateway=self._gateway)
        (folder / "ceph.conf").write_text(conf)
        address = f"[v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]"
        self._do("monmaptool", "--create", "--clobber", "--addv", "a", address, "--fsid", fsid, str(folder / "monmap"))
        self._do("ceph-mon", "-i", "a", "--mkfs", "--monmap", str(folder / "monmap"), "--keyring", "/dev/null")
        (folder / "mon" / "keyring").touch()
        self._keep("ceph-mon", "-i", "a")
        self._do("ceph", "osd", "new", osd)
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._keep("ceph-osd", "-i", "0")
        self._keep("radosgw", "-n", "client.rgw")
        self._await_answer()
        for name, key, secret in (("tests", TEST_KEY, TEST_SECRET), (GUEST, GUEST_KEY, GUEST_SECRET)):
            self._do(
                *("radosgw-admin", "-n", "client.rgw", "user", "create", f"--uid={name}", f"--display-name={name}"),
                *(f"--access-key={key}", f"--secret-key={secret}", "--max-buckets=0"),
            )

    def _command(self, name: str, *arguments: str) -> list[str]:
        conf = () if name == "monmaptool" else ("-c", str(self._folder / "ceph.conf"))
        return [_path(name), *conf, *arguments]

    def _do(self, name: str, *arguments: str) -> None:
        """Run a command to its end; its output goes to a file."""
        with (self._folder / "commands.log").open("ab") as log:
            subprocess.run(
                self._command(name, *arguments),
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_PATIENCE, check=True,
            )  # fmt: skip

    def _keep(self, name: str, *arguments: str) -> None:
        """Start a daemon in the foreground, so that it is a child of ours and its pid known."""
        with (self._folder / f"{name}.out.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                self._command(name, "-f", *arguments),
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for name, daemon in self._daemons.items():
                if daemon.poll() is not None:
                    raise _NotUp(f"{name} ended with {daemon.returncode}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self._gateway, timeout=5)
                try:
                    connection.request("GET", "/")
                    if connection.getresponse().status == 200:
                        return
                finally:
                    connection.close()
            time.sleep(0.1)  # processes of their own are coming up: there is nothing to wait on
        raise subprocess.TimeoutExpired("radosgw", _PATIENCE)

    def _tails(self) -> str:
        logs = sorted(self._folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-_TAIL:]}" for log in logs)

    def _end(self) -> None:
        """End all by their own pids, at once: what they hold is in memory and nobody's."""
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


class _NotUp(Exception):
    """A daemon ended by itself: worth another start, on other ports."""


def _path(name: str) -> str:
    return str(need(name)[name]) if name in BINARIES else name  # the others come with them


@contextmanager
def shared_rgw(folder: Path) -> Iterator[str]:
    """Yield the URL of the one RGW of `folder`; whoever comes first has it started, it ends after the last.

    It runs below a process of its own that waits until nobody holds the lock on `users`. The kernel gives up the
    lock of a process that died, so that a test run which is killed leaves no server behind either.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "users", fcntl.LOCK_SH):
        with _locked(folder / "starting", fcntl.LOCK_EX):
            ready, failed = folder / "ready.json", folder / "failed"
            if not ready.exists():
                _keeper(folder, ready, failed)
        yield json.loads(ready.read_text())["url"]


def _keeper(folder: Path, ready: Path, failed: Path) -> None:
    failed.unlink(missing_ok=True)
    with (folder / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.support.rgw", str(folder)],
            cwd=Path(__file__).parents[2],
            start_new_session=True,  # Ctrl-C is for the tests
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    _keepers.append(keeper)
    while not ready.exists():
        if keeper.poll() is not None:
            raise AssertionError(failed.read_text() if failed.exists() else (folder / "keeper.log").read_text())
        time.sleep(0.05)  # a process of its own is coming up: there is nothing to wait on


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, how)
        yield


def _keep(folder: Path) -> None:
    """Keep an RGW running for as long as somebody holds the lock on `users`."""
    try:
        with Rgw(folder / "cluster") as rgw:
            unfinished = folder / "ready.part"
            unfinished.write_text(json.dumps({"url": rgw.url}))
            unfinished.rename(folder / "ready.json")
            with _locked(folder / "users", fcntl.LOCK_EX):
                (folder / "ready.json").unlink()
    except AssertionError as error:
        (folder / "failed").write_text(str(error))
        raise


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
