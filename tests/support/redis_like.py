"""What Valkey and Redis have in common for tests: a real server on a free port of the loopback, or a Sentinel that
watches one; started, restarted, frozen, killed at will.

Which binary it is say `tests.support.valkey` and `tests.support.redis_server`. Its output goes to a file: into a pipe
that nobody reads it would hang once the pipe is full.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from storage.state_scripts import NOBODY_IN_FLIGHT

_STARTS = 5  # a port that was free may be taken when the server binds it
_PATIENCE = 20.0  # seconds; a start takes about 0.05
_LAST_WORDS = 2000


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class RedisLike:
    """A context manager. Options are those of the configuration file, with `_` for `-`.

    With `sentinel_of` it is a Sentinel of that server, called `primary`, and `lines` are added to its file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        sentinel_of: "RedisLike | None" = None,
        lines: Sequence[str] = (),
        **options: str,
    ) -> None:
        self._folder = folder
        self._wanted_port = port
        self._sentinel_of = sentinel_of
        self._more_lines = lines
        self._options = {"save": "", "appendonly": "no", "loglevel": "warning"} | options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def log(self) -> Path:
        return self._folder / "server.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def binary(self) -> Path:
        """Return the path of the server; skips the test where there is none."""
        raise NotImplementedError

    def client(self, **options: Any) -> redis.Redis:
        """Return a raw client, for looking behind the state; close it, or use it in `with`."""
        return redis.Redis("127.0.0.1", self.port, decode_responses=True, protocol=2, **options)

    def start(self) -> None:
        """Start and wait until it answers; on the same port as before, if there was one."""
        wanted = self.port or self._wanted_port
        for _ in range(_STARTS):
            self.port = wanted or free_port()
            if self._start_once():
                return
        raise AssertionError(f"{self.binary()} did not start:\n{self.log.read_text()[-_LAST_WORDS:]}")

    def stop(self) -> None:
        """End it in an orderly way; its data stay only where it was told to save them."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self, *, keep_data: bool) -> None:
        """Stop and start on the same port, with all of its data or none."""
        if keep_data:
            with self.client() as client:
                client.save()
            self.kill()
        else:
            self.kill()
            for name in ("dump.rdb", "appendonlydir"):
                path = self._folder / name
                path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
        self.start()

    def flush(self) -> None:
        """Forget all data and all scripts."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def nobody_in_flight(self, namespace: str) -> None:
        """Have permits of that archive granted at once: its workers have not been started yet."""
        with self.client() as client:
            client.eval(NOBODY_IN_FLIGHT, 1, f"callvault:{namespace}:permits-since")

    def freeze(self) -> None:
        """Stop answering without closing a connection, until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _start_once(self) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "server.conf"
        config.write_text("".join(f"{line}\n" for line in self._lines()))
        command = [str(self.binary()), str(config)] + (["--sentinel"] if self._sentinel_of else [])
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _PATIENCE
        with self.client(retry=None) as client:
            while self._process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
                    client.ping()
                    return True
                time.sleep(0.01)  # a process of its own is coming up: there is nothing to wait on
        self.kill()
        return False

    def _listening(self) -> list[str]:
        return [f"port {self.port}"]

    def _lines(self) -> list[str]:
        lines = ["bind 127.0.0.1", *self._listening(), "protected-mode no", "daemonize no"]
        if self._sentinel_of:
            return [*lines, f"sentinel monitor primary 127.0.0.1 {self._sentinel_of.port} 1", *self._more_lines]
        lines += [f"dir {self._folder}", "databases 16", "enable-debug-command local", *self._more_lines]
        return lines + [f'{name.replace("_", "-")} "{value}"' for name, value in self._options.items()]

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(_PATIENCE)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
