"""A recording's bytes on their way into the archive: hashed and counted as they pass, visible nowhere yet.

Up to one part they stay in memory and go out as one PUT; beyond that they go up in parts while they arrive.
With a twin, the same parts also go up under a quarantine key, so that bytes which turn out to be wrong can
be kept as evidence without a further download. `worker.transfer` decides which of the two is published.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

from storage.lock import Lock
from storage.store import ArchiveStore, Upload, Written
from worker.steps import Step, reached


class Draft:
    """As an async context manager it drops everything that was not published, on every exit."""

    def __init__(
        self,
        store: ArchiveStore,
        key: str,
        content_type: str,
        part_bytes: int,
        twin: str | None = None,
        lock: Lock | None = None,
        hold: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.key = key
        self.size = 0
        self.held = False
        """Whether what was published is under a legal hold, as `hold` said just before it was sent."""
        self._store = store
        self._content_type = content_type
        self._part_bytes = part_bytes
        self._twin = twin
        self._lock = lock
        self._hold = hold
        self._whole = hashlib.sha256()
        self._buffer = bytearray()
        self._filled = 0
        self._uploads: dict[str, Upload] = {}

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of all bytes so far, in hex."""
        return self._whole.hexdigest()

    @property
    def large(self) -> bool:
        """Tell whether the bytes are going up in parts; then only keys named at the start can be published."""
        return bool(self._uploads)

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes; sends a part when there is more than one."""
        self._whole.update(chunk)
        self.size += len(chunk)
        self._append(chunk)
        while self._filled > self._part_bytes:
            await self._send(self._part_bytes)

    async def publish(self, key: str, metadata: Mapping[str, str]) -> Written:
        """Make the bytes visible under `key`, create-only. AlreadyExists when it is taken.

        Metadata go with a single PUT only: those of an upload in parts were fixed before the hash was known.
        """
        if not self.large:
            await self._ask()
            body = memoryview(self._buffer)[: self._filled]
            return await self._store.put(
                key,
                body,
                sha256=self.sha256,
                content_type=self._content_type,
                metadata=metadata,
                lock=self._lock,
                legal_hold=self.held,
            )
        if self._filled:
            await self._send(self._filled)
        return await self._uploads[key].complete()  # those left are dropped at the exit

    async def _ask(self) -> None:
        self.held = await self._hold() if self._hold else False

    def _append(self, chunk: bytes) -> None:
        """Copy into the one buffer, which grows to about a part and is then used again and again."""
        end = self._filled + len(chunk)
        if end <= len(self._buffer):
            self._buffer[self._filled : end] = chunk
        elif self.large:  # a view of it may still be lent out, and what is lent cannot grow
            self._buffer = self._buffer[: self._filled] + chunk
        else:
            self._buffer[self._filled :] = chunk
        self._filled = end

    async def _send(self, size: int) -> None:
        """Send the first `size` bytes of the buffer as a part and move the rest to the front."""
        if not self.large:
            await self._ask()
        body = memoryview(self._buffer)[:size]
        sha256 = hashlib.sha256(body).hexdigest()
        for key in (self.key, self._twin):
            if key is None:
                continue
            if key not in self._uploads:
                self._uploads[key] = await self._store.upload(
                    key, content_type=self._content_type, lock=self._lock, legal_hold=self.held
                )
            await self._uploads[key].part(body, sha256)
            reached(Step.PART_SENT)
        rest = self._filled - size
        self._buffer[:rest] = self._buffer[size : self._filled]
        self._filled = rest

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for upload in self._uploads.values():
            await upload.__aexit__(kind, error, trace)
