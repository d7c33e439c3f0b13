"""A body on its way: counted, decompressed, held to its length and to a pace, its slot given back once."""

import asyncio
import gzip
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.peer import Peer, answer
from tests.support.rest import Desk
from worker.errors import BadAnswer, Retry, SourceError, Truncated
from worker.rest.client import Purpose
from worker.rest.media import BodyStream

AUDIO = bytes(range(256)) * 8


async def opened(desk: Desk) -> BodyStream:
    """Open the media of the peer behind the desk."""
    return await desk.rest.open("GET", "/x", purpose=Purpose.MEDIA)


async def outcome(raw: Any, folder: Path) -> bytes | SourceError:
    """Return the body that a raw answer gives, or the error; the slot must be free after both."""
    async with Peer([raw]) as peer, Desk(peer.url, folder) as desk:
        try:
            stream = await opened(desk)
            try:
                return b"".join([chunk async for chunk in stream.chunks()])
            finally:
                await stream.aclose()
                assert desk.free
        except SourceError as error:
            return error


async def test_a_plain_body_is_told_as_it_came(tmp_path: Path) -> None:
    """Status, type, length and framing are those of the answer; peeking consumes nothing."""
    async with Peer([answer(AUDIO, Content_Type="audio/wav")]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        assert (stream.status, stream.content_type, stream.headers["content-type"]) == (200, "audio/wav", "audio/wav")
        assert (stream.declared_length, stream.framed, stream.compressed) == (len(AUDIO), True, False)
        assert stream.url == f"{peer.url}/x"
        assert await stream.peek() == AUDIO[:512]
        assert await stream.peek() == AUDIO[:512]
        assert b"".join([chunk async for chunk in stream.chunks()]) == AUDIO
        assert not desk.free
        await stream.aclose()
        await stream.aclose()
        assert desk.free


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
async def test_peeking_at_short_bodies(tmp_path: Path, size: int) -> None:
    """Fewer than 512 bytes come only at the end of the body, and nothing is lost by looking."""
    async with Peer([answer(AUDIO[:size])]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        assert await stream.peek() == AUDIO[: min(size, 512)]
        assert await stream.read(1000) == AUDIO[:size]
        await stream.aclose()


@pytest.mark.parametrize("most", [1, 100, len(AUDIO), 10_000])
async def test_the_head_of_a_body(tmp_path: Path, most: int) -> None:
    """So many bytes from the beginning, what was peeked at included; all of a shorter body."""
    async with Peer([answer(AUDIO)]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        await stream.peek()
        assert await stream.head(most) == AUDIO[:most]
        await stream.aclose()
        assert desk.free


async def test_a_chunked_body_is_framed(tmp_path: Path) -> None:
    """Chunks have an end mark, so their length need not be told; without the mark the body is truncated."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    async with Peer([head + b"4\r\nRIFF\r\n0\r\n\r\n"]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        assert (stream.declared_length, stream.framed) == (None, True)
        assert await stream.read(10) == b"RIFF"
        await stream.aclose()
    assert isinstance(await outcome(head + b"4\r\nRIFF\r\n", tmp_path), Truncated)


async def test_a_body_until_close_is_not_framed(tmp_path: Path) -> None:
    """Without length and chunks nobody can tell whether the end came early; the stream says so."""
    async with Peer([answer(b"RIFF", Content_Length="")]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        assert (stream.declared_length, stream.framed, stream.content_type) == (None, False, "")
        assert await stream.read(10) == b"RIFF"
        await stream.aclose()


@pytest.mark.parametrize("name", ["gzip", "x-gzip", " GZIP "])
async def test_a_compressed_body_is_read_decompressed(tmp_path: Path, name: str) -> None:
    """The length announced is that of the compressed bytes, so none is told; the end mark frames it."""
    packed = gzip.compress(AUDIO * 2000)  # 4 MB out of few bytes: it grows a MiB at a time
    async with Peer([answer(packed, Content_Encoding=name)]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        assert (stream.declared_length, stream.framed, stream.compressed) == (None, True, True)
        sizes = [len(chunk) async for chunk in stream.chunks()]
        assert sum(sizes) == len(AUDIO) * 2000
        assert max(sizes) <= 1024 * 1024
        await stream.aclose()


async def test_gzip_of_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    """Members one after the other are one body; a cut in the second is noticed."""
    packed = gzip.compress(AUDIO) + gzip.compress(b"more")
    assert await outcome(answer(packed, Content_Encoding="gzip"), tmp_path) == AUDIO + b"more"
    assert isinstance(await outcome(answer(packed[:-3], Content_Encoding="gzip"), tmp_path), Truncated)


async def test_members_that_arrive_apart_are_one_body(tmp_path: Path) -> None:
    """It makes no difference whether a member ends with what was read at a time or in the midst of it."""
    first, second = gzip.compress(b"RIFF"), gzip.compress(AUDIO)
    read = asyncio.Event()

    async def in_turn(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(first, Content_Encoding="gzip", Content_Length=str(len(first) + len(second))))
        await read.wait()
        writer.write(second)

    async with Peer([in_turn]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        parts = []
        async for chunk in stream.chunks():
            parts.append(chunk)
            read.set()
        assert b"".join(parts) == b"RIFF" + AUDIO
        await stream.aclose()


async def test_a_spoilt_compressed_body_is_a_bad_answer(tmp_path: Path) -> None:
    """Bytes that are no gzip though they are called so end as an error of ours."""
    error = await outcome(answer(b"RIFF" * 100, Content_Encoding="gzip"), tmp_path)
    assert isinstance(error, BadAnswer)
    assert "cannot be read" in str(error)


async def test_fewer_bytes_than_announced(tmp_path: Path) -> None:
    """A length that is not reached is truncated, and the message names the request."""
    error = await outcome(answer(b"RIFF", Content_Length="10"), tmp_path)
    assert isinstance(error, Truncated)
    assert "GET /x" in str(error)


async def test_the_count_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the library ever end a body early without a word, the bytes were counted here as well."""
    async with Peer([answer(b"RIFF")]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        monkeypatch.setattr(aiohttp.ClientResponse, "content_length", 9)
        with pytest.raises(Truncated, match="9 bytes were announced, 4 came"):
            await stream.read(100)
        monkeypatch.undo()
        await stream.aclose()
        assert desk.free


async def test_a_reset_in_the_middle(tmp_path: Path) -> None:
    """A connection that is torn down in the middle of a body is something to retry."""

    async def torn(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"RIFF", Content_Length="1000"))
        await writer.drain()
        writer.transport.abort()

    assert isinstance(await outcome(torn, tmp_path), Retry)


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (aiohttp.ClientPayloadError("secret"), Truncated, "ended early"),
        (aiohttp.SocketTimeoutError("secret"), Retry, "stalled"),
        (aiohttp.ClientOSError(104, "secret"), Retry, r"lost in the middle \(ClientOSError\)"),
        (ConnectionResetError("secret"), Retry, r"lost in the middle \(ConnectionResetError\)"),
    ],
)
async def test_what_a_library_error_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[SourceError], said: str
) -> None:
    """Each error of the HTTP library becomes one of ours; its own text, which may hold the URL, is not passed on."""
    async with Peer([answer(b"RIFF")]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)

        async def fail(_: Any) -> bytes:
            raise error

        monkeypatch.setattr(aiohttp.StreamReader, "readany", fail)
        with pytest.raises(expected, match=said) as caught:
            await stream.read(100)
        assert type(caught.value) is expected
        assert "secret" not in str(caught.value)
        monkeypatch.undo()
        await stream.aclose()
        assert desk.free


@pytest.mark.parametrize(("size", "fine"), [(100, False), (4000, True)])
async def test_a_body_must_come_at_a_pace(tmp_path: Path, size: int, fine: bool) -> None:
    """A body that drips below 256 bytes a second is given up after half a minute; a slow telephone line is not."""
    goes = asyncio.Semaphore(0)
    pieces = 12

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", Content_Length=str(pieces * size)))
        for _ in range(pieces):
            await goes.acquire()
            desk.clock.advance(10)
            writer.write(b"x" * size)
            await writer.drain()

    async def read(stream: BodyStream) -> int:
        total = 0
        chunks = stream.chunks()
        while total < pieces * size:
            goes.release()
            total += len(await anext(chunks))
        return total

    async with Peer([drip]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        if fine:
            assert await read(stream) == pieces * size
        else:
            with pytest.raises(Retry, match="drips at 10 bytes a second"):
                await read(stream)
        await stream.aclose()
        assert desk.free


async def test_a_slow_reader_is_not_blamed_on_the_source(tmp_path: Path) -> None:
    """Time that passes between two reads is our own: only waiting for the source counts."""
    async with Peer([answer(AUDIO * 500)]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        total = 0
        async for chunk in stream.chunks():
            desk.clock.advance(3600)
            total += len(chunk)
        assert total == len(AUDIO) * 500
        await stream.aclose()


async def test_a_stream_may_take_over_a_slot(tmp_path: Path) -> None:
    """A slot held for a one-time link and its use goes to the stream, which gives it back when it is closed."""
    async with Peer([answer(AUDIO)]) as peer, Desk(peer.url, tmp_path) as desk:
        slot = await desk.rest.slot()
        stream = await desk.rest.open("GET", "/x", purpose=Purpose.MEDIA, slot=slot)
        stream.adopt(slot)
        await stream.aclose()
        assert desk.free


async def test_progress_is_noted_while_bytes_come(tmp_path: Path) -> None:
    """Every piece of a body counts as the source's progress."""
    async with Peer([answer(AUDIO)]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        desk.clock.advance(40)
        assert desk.gate.idle_seconds() == 40
        await stream.peek()
        assert desk.gate.idle_seconds() == 0
        await stream.aclose()


async def test_a_compressed_nothing_is_nothing(tmp_path: Path) -> None:
    """An empty body that came compressed is empty and not truncated."""
    assert await outcome(answer(gzip.compress(b""), Content_Encoding="gzip"), tmp_path) == b""


async def test_an_encoding_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    """Only gzip is undone; `identity` is a plain body."""
    error = await outcome(answer(b"RIFF", Content_Encoding="br"), tmp_path)
    assert isinstance(error, BadAnswer)
    assert "'br'" in str(error)
    assert await outcome(answer(b"RIFF", Content_Encoding="identity"), tmp_path) == b"RIFF"


async def test_reading_stops_at_the_ceiling(tmp_path: Path) -> None:
    """A body longer than the reader wants is refused, not cut."""
    async with Peer([answer(AUDIO)]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await opened(desk)
        with pytest.raises(BadAnswer, match="longer than 100 bytes"):
            await stream.read(100)
        await stream.aclose()
        assert desk.free
