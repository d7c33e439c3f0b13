"""Which workers run on this machine, so that each can be asked whether it works: a locked file for each of them.

The file lies in `state_dir/workers` and is locked for as long as the worker lives. The operating system takes the
lock back however the worker ends, so nothing has to be unregistered, a killed worker is never mistaken for a silent
one, and process ids that come again in another container prove nothing and are asked nothing. The next worker takes
the place that is free, with its name; so the names, and what is kept under them elsewhere, are few for ever.
Containers may share a `state_dir`: a worker counts for the host name it runs under. Asking is `tasks.calling`.
"""

import contextlib
import fcntl
import itertools
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from config.settings import Settings
from storage.keys import rid as file_safe

_ID = re.compile(r"[0-9a-f]{16}")
_LONGEST = 1000  # bytes of such a file


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker of this machine. `id` names its queue and its answers, `node` is what Celery calls it."""

    id: str
    node: str
    pid: int
    since: datetime


class Place:
    """A worker's place on the roster, held until its process ends or `leave`. A process forked from it holds none."""

    def __init__(self, worker: Worker, descriptor: int) -> None:
        self.worker = worker
        self._descriptor: int | None = descriptor
        os.register_at_fork(after_in_child=self.leave)  # or a pool process that is stuck would keep it

    def leave(self) -> None:
        """Give it up; may be called twice. The file stays: removing it would let two have it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def enrol(settings: Settings, node: str, now: datetime) -> Place:
    """Take the first place that is free on this machine's roster, for this process. OSError where that cannot be."""
    _folder(settings).mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        path = _folder(settings) / f"{_beginning(settings)}{number}.json"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        before = _read(descriptor)
        worker = Worker(before.id if before else secrets.token_hex(8), node, os.getpid(), now)
        fields = {"id": worker.id, "node": node, "pid": worker.pid, "since": now.isoformat()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(fields).encode(), 0)
        return Place(worker, descriptor)
    raise AssertionError("counting does not end")  # pragma: no cover - for the type checker


def at_work(settings: Settings) -> list[Worker]:
    """Return the workers that run on this machine just now. OSError where the roster may not be read."""
    return [worker for path in sorted(_files(settings)) if (worker := _if_locked(path))]


def _files(settings: Settings) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):  # no worker ever ran here
        for entry in os.scandir(_folder(settings)):
            if entry.name.startswith(_beginning(settings)):
                yield Path(entry.path)


def _if_locked(path: Path) -> Worker | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # shared: two who look at the same moment must not take each other for a worker
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Worker | None:
    """Return what the file says; None where it is new, is being written, or is not ours."""
    try:
        fields = json.loads(os.pread(descriptor, _LONGEST, 0))
        since = datetime.fromisoformat(fields["since"])
        well = _ID.fullmatch(fields["id"]) and since.tzinfo
        return Worker(fields["id"], str(fields["node"]), int(fields["pid"]), since) if well else None
    except (ValueError, TypeError, KeyError):
        return None


def _folder(settings: Settings) -> Path:
    return settings.runtime.state_dir / "workers"


def _beginning(settings: Settings) -> str:
    return f"{file_safe(settings.archive.namespace)}@{file_safe(socket.gethostname())}@"
