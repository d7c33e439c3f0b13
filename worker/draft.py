"""A recording's bytes on their way into the archive: hashed and counted as they pass, visible nowhere yet.

Up to one part they stay in memory and go out as one PUT; beyond that they go up in parts while they arrive.
With a twin, the same parts also go up under a quarantine key, so that bytes which turn out to be wrong can
be kept as evidence without a further download. `worker.transfer` decides which of the two is published.
"""

import hashlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from storage.store import ArchiveStore, Upload, Written


class Draft:
    """As an async context manager it drops everything that was not published, on every exit."""

    def __init__(
        self, store: ArchiveStore, key: str, content_type: str, part_bytes: int, twin: str | None = None
    ) -> None:
        self.key = key
        self.size = 0
        self._store = store
        self._content_type = content_type
        self._part_bytes = part_bytes
        self._twin = twin
        self._whole = hashlib.sha256()
        self._chunks: list[bytes] = []
        self._buffered = 0
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
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        while self._buffered > self._part_bytes:
            await self._send(self._take(self._part_bytes))

    async def publish(self, key: str, metadata: Mapping[str, str]) -> Written:
        """Make the bytes visible under `key`, create-only. AlreadyExists when it is taken.

        Metadata go with a single PUT only: those of an upload in parts were fixed before the hash was known.
        """
        if not self.large:
            body = self._take(self._buffered)
            self._chunks, self._buffered = [body], len(body)  # a conflict may yet want them for quarantine
            return await self._store.put(
                key, body, sha256=self.sha256, content_type=self._content_type, metadata=metadata
            )
        if self._buffered:
            await self._send(self._take(self._buffered))
        return await self._uploads[key].complete()  # those left are dropped at the exit

    async def _send(self, body: bytes) -> None:
        sha256 = hashlib.sha256(body).hexdigest()
        for key in (self.key, self._twin):
            if key is None:
                continue
            if key not in self._uploads:
                self._uploads[key] = await self._store.upload(key, content_type=self._content_type)
            await self._uploads[key].part(body, sha256)

    def _take(self, size: int) -> bytes:
        """Return exactly `size` buffered bytes and keep the rest."""
        whole = b"".join(self._chunks)
        rest = whole[size:]
        self._chunks = [rest] if rest else []
        self._buffered = len(rest)
        return whole[:size] if rest else whole

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for upload in self._uploads.values():
            await upload.__aexit__(kind, error, trace)
