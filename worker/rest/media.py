"""A body on its way: counted, bounded in waiting, held to its announced length, its slot given back at the end.

`BodyStream` serves metadata and recordings alike; what the bytes mean is decided by its readers.
"""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

import aiohttp

from config.clock import Clock
from worker.errors import BadAnswer, Retry, SourceError, Truncated
from worker.limits import LOST, Slot

HEAD = 512
"""Bytes shown by `peek`: enough for every signature and for an error document's first words."""

_WATCH = 30.0  # seconds of waiting after which the rate is looked at
_MIN_RATE = 256  # bytes a second; the slowest telephone codec stores more than 800
_INFLATE = 1024 * 1024
_HOLLOW = 1024 * 1024  # bytes that a compressed body may be larger than what it holds; empty blocks go on for ever


def _gunzip() -> "zlib._Decompress":
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def decoded(response: aiohttp.ClientResponse, what: str) -> "zlib._Decompress | None":
    """Return the decompressor for a body that came compressed though nobody asked; None for a plain one."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return None
    if coding in ("gzip", "x-gzip"):
        return _gunzip()
    response.close()
    raise BadAnswer(f"{what}: the body came in the encoding {coding[:20]!r}, which was not asked for")


class BodyStream:
    """The body of one answer. See `worker.vendor.MediaStream` for what its readers may expect."""

    def __init__(
        self,
        inflate: "zlib._Decompress | None",
        response: aiohttp.ClientResponse,
        what: str,
        slot: Slot,
        clock: Clock,
        progress: Callable[[], None],
        *,
        owns_slot: bool,
    ) -> None:
        self._inflate = inflate
        self._response = response
        self._what = what
        self._slot = slot if owns_slot else None
        self._clock = clock
        self._progress = progress
        self._source = self._watched()
        self._peeked: list[bytes] = []
        self._cut = False
        slot.ends_by(self._end)

    @property
    def status(self) -> int:
        """Return the HTTP status, below 300."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers, whose names match in any case."""
        return self._response.headers

    @property
    def url(self) -> str:
        """Return where the body came from; may hold credentials."""
        return str(self._response.url)

    @property
    def declared_length(self) -> int | None:
        """Return Content-Length, in bytes of the body as it is read here; None where none was sent."""
        return None if self._inflate else self._response.content_length

    @property
    def framed(self) -> bool:
        """Tell whether an early end would have been noticed: by length, by chunks, or by the end mark of gzip."""
        chunked = "chunked" in self._response.headers.get("Transfer-Encoding", "").lower()
        return bool(self._inflate) or self._response.content_length is not None or chunked

    @property
    def compressed(self) -> bool:
        """Tell whether the body came compressed and is read here decompressed."""
        return self._inflate is not None

    @property
    def content_type(self) -> str:
        """Return the header as sent."""
        return self._response.headers.get("Content-Type", "")

    def adopt(self, slot: Slot) -> None:
        """Take over a slot that was held over several requests: closing the stream gives it back."""
        self._slot = slot

    async def peek(self) -> bytes:
        """Return up to the first 512 bytes without consuming them; fewer only at the end of the body."""
        size = sum(map(len, self._peeked))
        while size < HEAD:
            chunk = await anext(self._source, b"")
            if not chunk:
                break
            self._peeked.append(chunk)
            size += len(chunk)
        return b"".join(self._peeked)[:HEAD]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body once."""
        while self._peeked:
            yield self._peeked.pop(0)
        async for chunk in self._source:
            yield chunk

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body. BadAnswer beyond `max_bytes`, and the rest is not read."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > max_bytes:
                raise BadAnswer(f"{self._what}: the answer is longer than {max_bytes} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def head(self, most: int) -> bytes:
        """Return the first `most` bytes of the body, or all of a shorter one; the rest is not read."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size >= most:
                break
        return b"".join(parts)[:most]

    async def aclose(self) -> None:
        """Drop the connection unless the body was read to its end, and give the slot back."""
        self._response.close() if not self._response.content.at_eof() else self._response.release()
        await self._source.aclose()
        slot, self._slot = self._slot, None
        if slot is not None:
            await slot.release()

    async def _watched(self) -> AsyncGenerator[bytes, None]:
        """Yield what comes, watching length and rate. Only time spent waiting for the source counts."""
        waited, since, total, made = 0.0, 0, 0, 0
        announced = self._response.content_length
        body = self._response.content.iter_any().__aiter__()
        while True:
            before = self._clock.monotonic()
            try:
                chunk = await anext(body, b"")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._translated(error) from error
            if not chunk:
                break
            self._progress()
            total += len(chunk)
            since += len(chunk)
            waited += self._clock.monotonic() - before
            if waited > _WATCH:
                if since / waited < _MIN_RATE:
                    raise Retry(f"{self._what}: the body drips at {since / waited:.0f} bytes a second")
                waited, since = 0.0, 0
            async for piece in self._inflated(chunk):
                made += len(piece)
                yield piece
            if self._inflate and total > made + _HOLLOW:
                raise BadAnswer(f"{self._what}: the compressed body is larger than what it holds")
        if announced is not None and total != announced:
            raise Truncated(f"{self._what}: {announced} bytes were announced, {total} came")
        if self._inflate and not self._inflate.eof:
            raise Truncated(f"{self._what}: the compressed body ended early")

    async def _inflated(self, chunk: bytes) -> AsyncIterator[bytes]:
        if not self._inflate:
            yield chunk
            return
        while chunk:
            if self._inflate.eof:  # gzip may come in several members, one after the other
                self._inflate = _gunzip()
            try:
                piece = self._inflate.decompress(chunk, _INFLATE)  # bounded: a bomb grows a MiB at a time
            except zlib.error as error:
                raise BadAnswer(f"{self._what}: the compressed body cannot be read") from error
            if piece:
                yield piece
            chunk = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail

    def _end(self) -> None:
        """Close the connection, unless everything has come: then no request is open any more.

        Closed so, the body ends with an error for its reader, also where no length would tell that it is not whole.
        """
        if not self._response.content.is_eof():
            self._cut = True
            self._response.close()

    def _translated(self, error: Exception) -> SourceError:
        if self._cut:
            return Retry(f"{self._what}: {LOST}")
        if isinstance(error, aiohttp.ClientPayloadError):
            return Truncated(f"{self._what}: the body ended early")
        if isinstance(error, TimeoutError):
            return Retry(f"{self._what}: the body stalled")
        return Retry(f"{self._what}: the connection was lost in the middle ({type(error).__name__})")
