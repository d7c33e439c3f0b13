"""Logging in once, sharing the token, renewing it once when it ran out.

A phone system may end one session when the same user opens another, and may lock an address after five
refused logins. So there is one token per source and machine: kept in memory and, for other processes and
the next run, in a file of mode 0600 under `state_dir`; a lock beside it lets one process log in at a time.
A refused login is remembered and not repeated before `REFUSED_FOR`.
"""

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from config.clock import Clock
from worker.errors import LoginPage, NotAudio, SessionExpired, StopSource

REFUSED_FOR = 900.0
"""Seconds for which a refused login is not tried again: Yeastar's lock after five failures lasts 600."""

_LOCK_POLL = 0.05
_WORN = 3  # tokens in a row that may run out under one call, used up by others

T = TypeVar("T")


class TokenFile:
    """One source's token on disk, bound to the credentials it was got with."""

    def __init__(self, folder: Path, source: str, identity: str) -> None:
        self._path = folder / f"{source}.json"
        self._identity = hashlib.sha256(identity.encode()).hexdigest()

    def read(self) -> dict[str, str]:
        """Return what is kept for these credentials; empty when there is nothing usable."""
        try:
            kept = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        usable = isinstance(kept, dict) and kept.get("identity") == self._identity
        return {k: str(v) for k, v in kept.items()} if usable else {}

    def write(self, **fields: str) -> None:
        """Keep the fields, readable by this user alone. StopSource where the folder cannot be written."""
        fresh = self._path.with_suffix(f".{os.getpid()}.tmp")
        with self._writable():
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({"identity": self._identity, **fields}, file)
            fresh.replace(self._path)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            yield
        except OSError as error:
            raise StopSource(
                f"{folder} cannot be used ({error.strerror}): set [runtime] state_dir to a folder this user may write"
            ) from error

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the machine-wide lock of this source's login. StopSource where the folder cannot be written."""
        with self._writable():
            lock = self._path.with_suffix(".lock").open("w")
        with lock as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_LOCK_POLL)
            yield


class Session:
    """The one login of a source. `login` returns a new token; `hide` is told each token for redaction."""

    def __init__(
        self, file: TokenFile, login: Callable[[], Awaitable[str]], hide: Callable[[str], None], clock: Clock
    ) -> None:
        self._file = file
        self._login = login
        self._hide = hide
        self._clock = clock
        self._token = ""
        self._made = ""
        self._logins = 0
        self._proven = ""  # the last token that served a whole call: when that is refused, it ran out
        self._one_at_a_time = asyncio.Lock()

    async def run(self, call: Callable[[str], Awaitable[T]]) -> T:
        """Run a call with the token; where it ran out, log in once and repeat. StopSource when that fails too,
        NotAudio when a login page comes all the same.

        A token of another process may have run out as well, so only a login made since this call began
        counts as the one that is allowed.
        """
        logins = self._logins
        refused: set[str] = set()
        while True:
            token = await self._current(refused)
            try:
                answer = await call(token)
            except SessionExpired as error:
                worn = token == self._proven and len(refused) < _WORN  # served others: it ran out
                if token == self._made and self._logins > logins and not worn:
                    if isinstance(error, LoginPage):  # the login itself is good: this one answer is no answer
                        raise NotAudio(f"{error.message}, after a fresh login too") from error
                    raise StopSource(f"{error.message}; a fresh login was refused as well") from error
                refused.add(token)
            else:
                self._proven = token
                return answer

    async def _current(self, refused: set[str]) -> str:
        """Return a token that was not refused: from memory, from the file, or by logging in."""
        async with self._one_at_a_time:
            if self._token and self._token not in refused:
                return self._token
            async with self._file.locked():
                self._token = await self._kept_or_fresh(refused)
            self._hide(self._token)
            return self._token

    async def _kept_or_fresh(self, refused: set[str]) -> str:
        kept = self._file.read()
        token = kept.get("token", "")
        if token and token not in refused:
            return token
        self._made = await self._fresh(kept)
        self._logins += 1
        return self._made

    async def _fresh(self, kept: dict[str, str]) -> str:
        now = self._clock.now().timestamp()
        if "refused" in kept and (left := float(kept["refused_at"]) + REFUSED_FOR - now) > 0:
            raise StopSource(f"{kept['refused']} (not tried again for {left:.0f} s, so as not to be locked out)")
        try:
            token = await self._login()
        except StopSource as error:
            self._file.write(refused=error.message, refused_at=str(now))
            raise
        self._file.write(token=token)
        return token
