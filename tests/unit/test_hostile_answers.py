"""HTTP that no honest phone system sends: what it costs is bounded, and it ends as an error with a name."""

import asyncio
import contextlib
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.peer import Peer, answer
from tests.support.rest import Desk
from worker.errors import BadAnswer, Retry, SourceError, WaitUntil
from worker.rest.client import MAX_METADATA, Purpose
from worker.rest.waiting import MAX_WAIT

MIB = 1024 * 1024
HEAD = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
IN_BUFFERS = 24 * MIB
"""Bytes that sockets and libraries of both sides may hold; loopback's buffers grow to 6 MiB each."""


@contextlib.contextmanager
def little_memory(most: int) -> Iterator[None]:
    """Fail when the block has more than so many bytes of memory in use at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


class Endless:
    """Sends a head, then the same piece without end, and counts what the other side took."""

    def __init__(self, head: str, piece: bytes) -> None:
        self.sent = 0
        self._head = head
        self._piece = piece

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{HEAD}{self._head}".encode())
        while True:
            writer.write(self._piece)
            await writer.drain()
            self.sent += len(self._piece)


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


async def refused(peer: Peer, folder: Path) -> SourceError:
    """Ask once for a listing and return the error; the slot must be free again."""
    async with Desk(peer.url, folder) as desk:
        with pytest.raises(SourceError) as caught:
            await desk.rest.call("GET", "/", purpose=Purpose.LIST, tries=1)
        assert desk.free
        assert len(str(caught.value)) < 1000
        return caught.value


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        ("Content-Length: 2147483648\r\n\r\n", b" " * 65536),
        ("Transfer-Encoding: chunked\r\n\r\n", _chunk(b" " * 65536)),
        ("\r\n", b" " * 65536),
    ],
    ids=["2 GB announced", "chunks without end", "until close"],
)
async def test_metadata_are_read_to_their_ceiling_and_no_further(tmp_path: Path, head: str, piece: bytes) -> None:
    """Of a listing of two gigabytes, or without end, 16 MiB are read, and little more is in memory."""
    endless = Endless(head, piece)
    async with Peer([endless]) as peer:
        with little_memory(MAX_METADATA + IN_BUFFERS):
            error = await refused(peer, tmp_path)
    assert type(error) is BadAnswer
    assert f"longer than {MAX_METADATA} bytes" in error.message
    assert endless.sent < MAX_METADATA + IN_BUFFERS


async def test_a_compressed_bomb_stops_at_the_same_ceiling(tmp_path: Path) -> None:
    """Ten gigabytes in ten megabytes are inflated a MiB at a time, and no further than any listing."""
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(b" " * MIB) + packer.flush(zlib.Z_SYNC_FLUSH)
    more = packer.compress(b" " * MIB) + packer.flush(zlib.Z_SYNC_FLUSH)

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(f"{HEAD}Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + _chunk(start))
        for _ in range(10_000):
            writer.write(_chunk(more))
            await writer.drain()

    async with Peer([send]) as peer:
        with little_memory(MAX_METADATA + IN_BUFFERS):
            error = await refused(peer, tmp_path)
    assert type(error) is BadAnswer
    assert "longer than" in error.message


@pytest.mark.parametrize(
    "piece", [b"\x00\x00\x00\xff\xff" * 4000, zlib.compress(b"", wbits=31) * 1000], ids=["blocks", "members"]
)
async def test_compressed_nothing_without_end_comes_to_an_end(tmp_path: Path, piece: bytes) -> None:
    """Empty blocks and empty members inflate to nothing for ever: a body larger than what it holds is refused."""
    start = zlib.compress(b"", wbits=31)[:10] if piece[:1] == b"\x00" else b""

    async def send(writer: asyncio.StreamWriter) -> None:
        head = f"{HEAD}Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        writer.write(head + (_chunk(start) if start else b""))
        while True:
            writer.write(_chunk(piece))
            await writer.drain()

    async with Peer([send]) as peer:
        error = await refused(peer, tmp_path)
    assert type(error) is BadAnswer
    assert "larger than what it holds" in error.message


async def _headers_without_end(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD.encode())
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    "sent",
    [
        _headers_without_end,
        b"HTTP/1.1 200 " + b"O" * MIB + b"K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * MIB + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"HTTP/1.1 999999999999 OK\r\n\r\n",
        b"\x00" * 70_000,
    ],
    ids=["headers", "status line", "header", "length", "negative", "chunk", "status", "zeros"],
)
async def test_heads_that_are_no_http_are_refused(
    tmp_path: Path, sent: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
) -> None:
    """Heads without end, of a megabyte, or with numbers beyond all numbers end at once, in a sentence."""
    async with Peer([sent]) as peer:
        with little_memory(IN_BUFFERS):
            error = await refused(peer, tmp_path)
    assert isinstance(error, Retry)


@pytest.mark.parametrize(
    "told",
    [
        "1" + "0" * 30,
        "-5",
        "-" + "9" * 400,
        "1e400",
        "nan",
        "soon",
        "",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -1400",
        "Mon, 01 Jan 2026 99999999999:00:00 GMT",
        "\x7f",
        "Thu, 32 Foo 2026",
    ],
)
async def test_waits_of_any_kind_are_bounded(tmp_path: Path, told: str) -> None:
    """Whatever Retry-After and Date say, the source is waited for an hour at most, and nothing breaks."""
    async with Peer([answer(status="429 Slow", Retry_After=told, Date=told)]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises((WaitUntil, Retry)) as caught:
            await desk.rest.call("GET", "/", purpose=Purpose.LIST, tries=1)
        assert not isinstance(caught.value, WaitUntil) or 0 <= caught.value.seconds <= MAX_WAIT
        assert sum(desk.clock.slept) <= MAX_WAIT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Type", "text/html; charset=\xff\xfe\x1b[31m" + "x" * 5000),
        ("Content-Type", "audio/../../etc/passwd"),
        ("Content-Disposition", 'attachment; filename="../../../etc/passwd\x00.wav"'),
        ("Content-Range", "bytes 0-99999999999999999999/99999999999999999999"),
        ("Set-Cookie", "a=" + "b" * 7000),
        ("Link", "<" * 4000),
        ("Last-Modified", "31 Dec 9999 99:99:99 -9999"),
    ],
)
async def test_odd_headers_change_nothing_of_a_recording(tmp_path: Path, name: str, value: str) -> None:
    """Bytes decide what a recording is: its headers may say anything that HTTP lets through."""
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n{name}: {value}\r\n\r\n"
    async with Peer([head.encode("latin-1") + b"RIFF"]) as peer, Desk(peer.url, tmp_path, cookies=True) as desk:
        opening = desk.rest.open_audio("GET", "/", document=lambda _: BadAnswer("a document"))
        if "\x00" in value:  # refused by the parser
            with pytest.raises(SourceError):
                await opening
        else:
            stream = await opening
            assert await stream.read(10) == b"RIFF"
            await stream.aclose()
        assert desk.free
