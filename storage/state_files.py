"""What one `callvault run` leaves in `state_dir` for the next: a lock a lease, and a small file a source.

Used by `storage.state_local` alone. The files are disposable: one that is missing, damaged or somebody else's
counts as empty. They hold no secret, but recordings' ids, and are readable by their owner alone.
"""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from storage.state import Attempt, Pause, StateUnavailable
from storage.state_records import attempt_fields, attempt_from, moment_from

_FENCE_DIGITS = 20


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateUnavailable(
            f"cannot use the folder {folder} ({error.strerror or error}): "
            "set [runtime] state_dir to one that this user may write"
        ) from error


class FileLock:
    """A lock that the operating system takes back when its process dies; `fence` grows with each holder."""

    def __init__(self, descriptor: int, fence: int) -> None:
        self._descriptor: int | None = descriptor
        self.fence = fence

    @property
    def held(self) -> bool:
        """Whether it has not been given back."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give it back; may be called twice. The file stays: removing it would let two hold it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def try_lock(path: Path, least_fence: int) -> FileLock | None:
    """Take the lock without waiting; None when another process, or this one, has it. StateUnavailable."""
    with _usable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = os.pread(descriptor, _FENCE_DIGITS, 0)
            fence = max(least_fence, int(kept) + 1 if kept.isdigit() else 0)
            os.pwrite(descriptor, b"%0*d" % (_FENCE_DIGITS, fence), 0)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
    return FileLock(descriptor, fence)


@dataclass
class Kept:
    """What is remembered of one source from run to run."""

    attempts: dict[str, Attempt] = field(default_factory=dict)
    pause: Pause | None = None


class KeptFile:
    """One source's file, read again whenever another process has replaced it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._kept = Kept()

    def read(self) -> Kept:
        """Return what is kept; change it, then `write`. StateUnavailable when the folder cannot be used."""
        with _usable(self._path.parent):
            seen = self._version()
            if seen != self._seen:
                self._kept = _parsed(self._path.read_bytes()) if seen else Kept()
                self._seen = seen
        return self._kept

    def write(self) -> None:
        """Replace the file as a whole; who reads it meanwhile, or after a crash, finds the old or the new one."""
        document = {
            "attempts": {rid: attempt_fields(attempt) for rid, attempt in self._kept.attempts.items()},
            "pause": self._kept.pause
            and {"until": self._kept.pause.until.isoformat(), "reason": self._kept.pause.reason},
        }
        with _usable(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")  # mode 0600
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    json.dump(document, file, separators=(",", ":"))
                Path(temporary).replace(self._path)
            except BaseException:
                Path(temporary).unlink()
                raise
            self._seen = self._version()

    def _version(self) -> tuple[int, int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            return found.st_ino, found.st_mtime_ns, found.st_size
        return None


def _parsed(raw: bytes) -> Kept:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return Kept()
    if not isinstance(document, dict):
        return Kept()
    attempts = document.get("attempts")
    found = {rid: attempt_from(fields) for rid, fields in attempts.items()} if isinstance(attempts, dict) else {}
    return Kept({rid: attempt for rid, attempt in found.items() if attempt}, _pause_from(document.get("pause")))


def _pause_from(fields: object) -> Pause | None:
    if isinstance(fields, dict) and isinstance(reason := fields.get("reason"), str):
        with contextlib.suppress(ValueError, OverflowError):
            return Pause(moment_from(fields.get("until")), reason)
    return None
