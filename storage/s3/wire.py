"""HTTP/1.1 to one store, and no more of it than S3 needs: what the hot path spends its time on.

A request is one write of its head and its body, an answer is a status, headers and a body of one of HTTP's three
lengths. It costs a fifth of what aiohttp takes for the same exchange: 20 to 116 microseconds for a PUT of 48 KB. What
is not understood to the letter ends the connection; nothing is sent twice from here, and no redirect is followed.
Signing, trying again and what an answer means are `storage.s3.transport` and `storage.s3.refusals`.
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Self, cast
from urllib.parse import urlsplit

from multidict import CIMultiDict

from storage.store import Body

_MAX_HEAD = 64 * 1024
_MAX_LINE = 256  # of a chunk's size
_SLICE = 256 * 1024  # bytes handed to the socket at a time, so that other transfers have their turn
_QUEUED = 256 * 1024  # bytes of an answer that wait for their reader before the socket is left alone
_KEPT = 15.0  # seconds a connection is kept without a request; stores close theirs from twenty on
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_BODILESS: Final = frozenset({204, 304})


class Unreachable(OSError):
    """No connection could be made; the reason is its cause."""


class Cut(OSError):
    """The connection ended before an answer began."""


class EndedEarly(OSError):
    """The connection ended in the middle of an answer."""


class NotHttp(OSError):
    """What came is not HTTP as it is understood here."""


class Exchange:
    """One answer on its way: status and headers are there, the body is read by `chunks`. A context manager: at its end
    the connection is kept where everything was read, and closed where not.
    """

    def __init__(self, wire: "Wire", connection: "_Connection", silence: float) -> None:
        self._wire = wire
        self._connection = connection
        self._silence = silence
        self.status = connection.status
        self.headers = connection.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body once. TimeoutError, EndedEarly, NotHttp."""
        while (chunk := await self._connection.chunk(self._silence)) is not None:
            yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.take_back(self._connection)


class Wire:
    """Connections to one address. `connect` and `silence` are seconds: for a connection, and without any byte."""

    def __init__(self, base: str, connect: float, silence: float) -> None:
        parts = urlsplit(base)
        self._tls = parts.scheme == "https"
        self._context: ssl.SSLContext | None = None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._connect = connect
        self._silence = silence
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    @property
    def kept(self) -> int:
        """How many connections wait for their next request."""
        return len(self._idle)

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> Exchange:
        """Send a request and wait for the head of its answer.

        Unreachable, ssl.SSLError where there is no connection to be had; TimeoutError, Cut, NotHttp. ValueError for a
        header that would break out of its line.
        """
        head = _head(method, target, headers, len(body))
        connection = self._waiting() or await self._connected()
        try:
            await connection.ask(method, head, body, self._silence)
        except BaseException:
            connection.close()
            raise
        return Exchange(self, connection, self._silence)

    def take_back(self, connection: "_Connection") -> None:
        """Keep a connection whose answer was read to its end; close another."""
        if connection.usable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()

    async def aclose(self) -> None:
        """Close all connections, and wait until they are."""
        self._idle.clear()
        for connection in tuple(self._open):
            connection.close()
            await connection.closed.wait()

    def _waiting(self) -> "_Connection | None":
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()  # the one used last: the others may be let go
            if connection.usable and now - connection.idle_since < _KEPT:
                return connection
            connection.close()
        return None

    async def _connected(self) -> "_Connection":
        if self._tls and self._context is None:
            self._context = ssl.create_default_context()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._open.discard), self._host, self._port, ssl=self._context
                )
        except (TimeoutError, ssl.SSLError):
            raise
        except OSError as error:
            raise Unreachable(error.strerror or type(error).__name__) from error
        if connection.closed.is_set():
            raise Cut("before an answer")
        # Only now: of one that is given up while it is being made, uvloop never says that it is closed.
        self._open.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One connection: a request at a time, its answer parsed as it comes."""

    def __init__(self, forget: "Callable[[_Connection], None]") -> None:
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.idle_since = 0.0
        self.closed = asyncio.Event()
        self._forget = forget
        self._buffer = b""
        self._method = ""
        self._in_head = False
        self._left: int | None = 0
        """Bytes of the body, or of its chunk, still to come; None where the end of the connection is its end."""
        self._chunked = False
        self._trailer = False
        self._whole = True
        """Whether the answer has come to its end, or none is under way."""
        self._last = False
        """Whether no other request may go this way: the store closes the connection, or sent more than it should."""
        self._error: OSError | None = None
        self._chunks: deque[bytes] = deque()
        self._queued = 0
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    # what the wire asks

    @property
    def usable(self) -> bool:
        """Whether another request may go this way: everything was sent, everything read, nothing odd came."""
        return self._whole and not self._last and not self._chunks and self._transport.get_write_buffer_size() == 0

    async def ask(self, method: str, head: bytes, body: Body, silence: float) -> None:
        """Send a request and wait for the head of its answer."""
        self._method, self._in_head, self._whole = method, True, False
        if len(body) <= _SLICE:
            self._transport.writelines([head, body])
        else:
            self._transport.write(head)
            await self._send(memoryview(body))
        while self._in_head and self._error is None:
            await self._wait(silence)
        if self._error and self._in_head:
            raise self._error

    async def _send(self, view: memoryview) -> None:
        for at in range(0, len(view), _SLICE):
            if self._writable is not None:
                await self._writable
            if not self._in_head or self._error or self._transport.is_closing():
                self._last = True  # answered or cut before all was sent: nobody wants the rest
                return
            self._transport.write(view[at : at + _SLICE])

    async def chunk(self, silence: float) -> bytes | None:
        """Return the next bytes of the body; None at its end."""
        while not self._chunks:
            if self._whole:
                return None
            if self._error is not None:
                raise self._error
            await self._wait(silence)
        chunk = self._chunks.popleft()
        self._queued -= len(chunk)
        if self._queued < _QUEUED <= self._queued + len(chunk):
            self._transport.resume_reading()
        return chunk

    def close(self) -> None:
        """End it now, whatever is on its way."""
        self._transport.abort()

    async def _wait(self, silence: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(silence, self._wake, TimeoutError())  # a sixth of what asyncio.timeout takes
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self, error: Exception | None = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error) if error else self._waiter.set_result(None)

    # what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        """Have the sender wait until the socket takes more."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Have it go on."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def eof_received(self) -> None:
        """Close: a store that says no more takes no further request either."""
        self._last = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits; without a length, this is the end of the body."""
        if not self._whole:
            if self._in_head:
                self._error = self._error or Cut("before an answer")
            elif self._left is None and exc is None and not self._error:
                self._whole = True
            else:
                self._error = self._error or EndedEarly("in the middle of an answer")
        self._last = True
        self._forget(self)
        self.resume_writing()
        self._wake()
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._whole:  # nothing was asked: whatever this is, it answers no request of ours
            self._last = True
            self._transport.abort()
            return
        try:
            self._parse(data)
        except NotHttp as error:
            self._error = error
            self._transport.abort()
        self._wake()

    # the answer

    def _parse(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        while self._in_head:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > _MAX_HEAD:
                    raise NotHttp("a head without end")
                self._buffer = data
                return
            self._read_head(data[:end])
            data = data[end + 4 :]
        if self._chunked:
            data = self._parse_chunked(data)
        elif self._left is None:
            data = self._take(data, len(data))
        else:
            size = min(len(data), self._left)
            self._left -= size
            self._whole = self._left == 0
            data = self._take(data, size)
        if data:
            self._last = True  # more than was asked for

    def _read_head(self, head: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        found = _STATUS.fullmatch(line)
        if not found:
            raise NotHttp("no status line")
        self.status = int(found[1])
        if self.status < 200:
            if self.status == 101:
                raise NotHttp("another protocol")
            return  # 100 Continue and its like come before the answer
        headers: CIMultiDict[str] = CIMultiDict()
        for told in lines:
            name, colon, value = told.partition(b":")
            if not colon or not name or name != name.strip():
                raise NotHttp("a header that is none")
            headers.add(name.decode("latin-1"), value.strip(b" \t").decode("utf-8", "surrogateescape"))
        self.headers, self._in_head = headers, False
        self._last = line.startswith(b"HTTP/1.0") or "close" in headers.get("Connection", "").lower()
        self._measure(headers)

    def _measure(self, headers: CIMultiDict[str]) -> None:
        """Find out how long the body is."""
        coding = headers.getall("Transfer-Encoding", [])
        lengths = set(headers.getall("Content-Length", []))
        self._chunked, self._trailer, self._left = False, False, 0
        if self._method == "HEAD" or self.status in _BODILESS:
            self._whole = True
        elif coding:
            if [told.lower() for told in coding] != ["chunked"] or lengths:
                raise NotHttp("a body of an unknown coding")
            self._chunked = True
        elif lengths:
            told = lengths.pop()
            if lengths or not (told.isascii() and told.isdigit() and len(told) < 20):
                raise NotHttp("a length that is none")
            self._left = int(told)
            self._whole = self._left == 0
        else:
            self._left, self._last = None, True

    def _parse_chunked(self, data: bytes) -> bytes:
        """Take chunks out of what came, as far as it goes; return what stands behind the last of them."""
        while data and not self._whole:
            if self._left:
                size = min(len(data), self._left)
                self._left -= size
                data = self._take(data, size)
                continue
            end = data.find(b"\r\n")
            if end > _MAX_LINE or (end < 0 and len(data) > _MAX_LINE):
                raise NotHttp("a chunk without size")
            if end < 0:
                self._buffer = data
                return b""
            line, data = data[:end], data[end + 2 :]
            if self._trailer:
                self._whole = not line
            elif line:  # an empty line ends the chunk before
                found = _CHUNK.fullmatch(line)
                if not found:
                    raise NotHttp("a chunk without size")
                self._left = int(found[1], 16)
                self._trailer = self._left == 0
        return data

    def _take(self, data: bytes, size: int) -> bytes:
        """Put the first `size` bytes where the reader finds them; return the others."""
        if size:
            self._chunks.append(data[:size])
            before, self._queued = self._queued, self._queued + size
            if before < _QUEUED <= self._queued:
                self._transport.pause_reading()
        return data[size:]


def _head(method: str, target: str, headers: Mapping[str, str], length: int) -> bytes:
    """Return a request's head. ValueError for a header that would break out of its line."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    if length or method in ("PUT", "POST"):
        lines.append(f"Content-Length: {length}")
    head = "\r\n".join(lines)
    if head.count("\r") != len(lines) - 1 or head.count("\n") != len(lines) - 1 or "\0" in head:
        raise ValueError("a header holds a line break")
    return f"{head}\r\n\r\n".encode()
