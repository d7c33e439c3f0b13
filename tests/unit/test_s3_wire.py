"""HTTP as the store speaks it, byte by byte: what is read, what is refused, and when a connection is used again."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from storage.s3.wire import Cut, EndedEarly, Exchange, NotHttp, Unreachable, Wire
from tests.support.tls import self_signed


class Peer:
    """Answers each request with the next of its scripts, in pieces of the given size; None hangs up instead."""

    def __init__(self, *scripts: bytes | None, piece: int = 1 << 20, hold: bool = False) -> None:
        self.scripts = list(scripts)
        self.piece = piece
        self.hold = hold
        self.heads: list[bytes] = []
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while self.scripts:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = [line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
                await reader.readexactly(int(length[0]) if length else 0)
                script = self.scripts.pop(0)
                if script is None:
                    break
                for at in range(0, len(script), self.piece):
                    writer.write(script[at : at + self.piece])
                    await writer.drain()
                    await asyncio.sleep(0)
        if not self.hold:
            writer.close()

    @asynccontextmanager
    async def wire(self, silence: float = 20.0) -> AsyncIterator[Wire]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 20.0, silence)
        try:
            yield wire
        finally:
            await asyncio.wait_for(wire.aclose(), 20)
            for writer in self._writers:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            server.close()
            await server.wait_closed()


async def read(exchange: Exchange) -> bytes:
    """Read a body to its end and give the connection back."""
    with exchange:
        return b"".join([chunk async for chunk in exchange.chunks()])


async def ask(wire: Wire, method: str = "GET") -> tuple[int, bytes]:
    """Ask for something; return status and body."""
    exchange = await wire.ask(method, "/a", {"Host": "a"}, b"")
    return exchange.status, await read(exchange)


async def until(condition: Callable[[], bool]) -> None:
    """Let others on this loop go on until it holds."""
    while not condition():  # noqa: ASYNC110 - it is the other end of a socket that acts, and nobody sets an event
        await asyncio.sleep(0)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nRIFF"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=1\r\nRI\r\n2\r\nFF\r\n0\r\nX-Trailer: 1\r\n\r\n"


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("answer", [OK, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + OK])
async def test_an_answer_may_come_in_any_pieces(answer: bytes, piece: int) -> None:
    """Lengths, chunks, interim answers: however they are cut on the way, the body is whole and the connection kept."""
    peer = Peer(answer, answer, piece=piece)
    async with peer.wire() as wire:
        assert [await ask(wire), await ask(wire)] == [(200, b"RIFF")] * 2
        assert (peer.connections, wire.kept) == (1, 1)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("PUT", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_what_has_no_body_is_over_at_once(method: str, answer: bytes) -> None:
    """HEAD, 204 and a length of nought: nothing is waited for."""
    async with Peer(answer).wire() as wire:
        assert (await ask(wire, method))[1] == b""
        assert wire.kept == 1


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\n\r\nRIFF", b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nRIFF"]
)
async def test_an_old_server_closes_after_its_answer(answer: bytes) -> None:
    """Without a length the end of the connection is the end of the body; such a connection is not used again."""
    async with Peer(answer).wire() as wire:
        assert await ask(wire) == (200, b"RIFF")
        assert wire.kept == 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, Cut),
        (b"HTTP/1.1 200", Cut),
        (b"220 mail.example.net\r\n\r\n", NotHttp),
        (b"HTTP/1.1 2000 OK\r\n\r\n", NotHttp),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\n folded: line\r\n\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nRIFF", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nRIFF", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nRIFF", NotHttp),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nRIFF", EndedEarly),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nRIFF\r\n", EndedEarly),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nRIFF\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 300, NotHttp),
    ],
)
async def test_what_is_not_understood_is_no_answer(answer: bytes | None, kind: type[OSError]) -> None:
    """Neither half an answer nor an ambiguous one passes for a whole one, and the connection is gone."""
    async with Peer(answer).wire() as wire:
        with pytest.raises(kind):
            await ask(wire)
        assert wire.kept == 0


async def test_more_than_the_answer_ends_the_connection() -> None:
    """Bytes behind an answer, or without a question, are nobody's: the next request goes another way."""
    peer = Peer(OK + b"HTTP", CHUNKED + b"HTTP", b"HTTP/1.1 204 No Content\r\n\r\nHTTP", OK)
    async with peer.wire() as wire:
        for _ in range(4):
            await ask(wire)
        assert peer.connections == 4


async def test_what_comes_unasked_ends_the_connection() -> None:
    """An answer that comes while none is waited for is never taken for that of the next request."""
    peer = Peer(OK, OK, hold=True)
    async with peer.wire() as wire:
        await ask(wire)
        peer._writers[0].write(OK.replace(b"RIFF", b"EVIL"))
        await peer._writers[0].drain()
        await until(wire._idle[0]._transport.is_closing)
        assert await ask(wire) == (200, b"RIFF")
        assert peer.connections == 2


async def test_a_connection_that_was_closed_or_is_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the store closed meanwhile, and one that has waited too long, are replaced without a failure."""
    peer = Peer(OK, OK, OK, hold=True)
    async with peer.wire() as wire:
        await ask(wire)
        peer._writers[0].close()
        await wire._idle[0].closed.wait()
        await ask(wire)
        wire._idle[0].idle_since -= 16
        await ask(wire)
        assert peer.connections == 3


async def test_a_body_that_is_not_read_to_its_end_closes_the_connection() -> None:
    """What was left of it would be taken for the next answer."""
    async with Peer(OK).wire() as wire:
        exchange = await wire.ask("GET", "/a", {}, b"")
        with exchange:
            pass
        assert wire.kept == 0


async def test_silence_is_bounded() -> None:
    """Neither an answer nor its body is waited for longer than told."""
    async with Peer(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nRI", hold=True).wire(silence=0.05) as wire:
        with pytest.raises(TimeoutError):
            await ask(wire)
    async with Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nRI", hold=True).wire(silence=0.05) as wire:
        with pytest.raises(TimeoutError):
            await ask(wire)


async def test_a_slow_reader_is_not_flooded() -> None:
    """Of a large body no more is taken in than a reader who takes his time can hold."""
    size = 64 * 2**20
    peer = Peer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    async with peer.wire() as wire:
        with await wire.ask("GET", "/a", {}, b"") as exchange:
            most = total = 0
            async for chunk in exchange.chunks():
                total += len(chunk)
                await asyncio.sleep(0)
                most = max(most, exchange._connection._queued)
        assert total == size
        assert most < 2**20


async def test_a_body_that_nobody_takes_is_given_up_when_an_answer_comes() -> None:
    """A store that refuses before it has read everything is heard, and the connection is not used again."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nNo")
        await writer.drain()
        await done.wait()
        writer.transport.abort()
        gone.set()

    done, gone = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 20.0, 20.0)
    sending = asyncio.create_task(wire.ask("PUT", "/a", {}, bytes(64 * 2**20)))
    await until(lambda: bool(wire._open) and not next(iter(wire._open))._in_head)
    done.set()
    exchange = await sending
    assert exchange.status == 403
    with exchange:
        pass
    assert wire.kept == 0
    await gone.wait()
    await wire.aclose()
    server.close()
    await server.wait_closed()


async def test_a_cancelled_request_leaves_no_connection_behind() -> None:
    """What was asked for and is not waited for must not answer the next request."""
    async with Peer(b"", hold=True).wire() as wire:
        asked = asyncio.create_task(ask(wire))
        await until(lambda: bool(wire._open))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert wire.kept == 0


async def test_nobody_at_home() -> None:
    """No connection: the reason is told."""
    async with Peer().wire() as wire:
        pass
    with pytest.raises(Unreachable, match=r"\w"):
        await ask(wire)


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nEvil: 1", "a\0"])
async def test_a_header_cannot_break_out_of_its_line(value: str) -> None:
    """Nothing that came from a phone system can add a header of its own."""
    with pytest.raises(ValueError, match="line break"):
        await Wire("http://127.0.0.1:9", 1, 1).ask("PUT", "/a", {"x-amz-meta-a": value}, b"")


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.integers(1, 50))
def test_chunks_however_they_are_cut(chunks: list[bytes], piece: int) -> None:
    """Any body in any chunks, cut anywhere, is read as it was sent; also on the loop that production uses."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"

    async def once() -> None:
        async with Peer(answer, OK, piece=piece).wire() as wire:
            assert await ask(wire) == (200, b"".join(chunks))
            assert await ask(wire) == (200, b"RIFF")

    uvloop.run(once())


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_given_up_at_any_moment(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Before there is a connection, while it is made, and after: nothing is left that cannot be closed."""

    async def main() -> None:
        peer = Peer(*[OK] * 40)
        async with peer.wire() as wire:
            for rounds in range(40):
                asking = asyncio.create_task(ask(wire))
                for _ in range(rounds):
                    await asyncio.sleep(0)
                asking.cancel()
                with suppress(asyncio.CancelledError):
                    await asking
                await asyncio.wait_for(wire.aclose(), 20)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


async def test_lost_as_soon_as_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent to who has gone already."""
    connect = asyncio.BaseEventLoop.create_connection

    async def lost(self: asyncio.BaseEventLoop, *args: Any, **options: Any) -> Any:
        transport, protocol = await connect(self, *args, **options)
        transport.abort()
        await protocol.closed.wait()
        return transport, protocol

    peer = Peer()
    async with peer.wire() as wire:
        monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", lost)
        with pytest.raises(Cut):
            await ask(wire)
    assert peer.heads == []


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """With a certificate that the machine trusts, bodies of any size come and go; without trust, nothing is sent."""
    certificate = self_signed(tmp_path)
    seen: list[int] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            for _ in range(2):
                length = int((await reader.readuntil(b"\r\n\r\n")).rpartition(b"Content-Length: ")[2])
                seen.append(len(await reader.readexactly(length)))
                writer.write(OK)
                await writer.drain()
        writer.close()
        ended.set()

    ended = asyncio.Event()  # of whichever loop waits for it first

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificate.server)
        base = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        stranger = Wire(base, 20.0, 20.0)
        with pytest.raises(ssl.SSLCertVerificationError):
            await stranger.ask("PUT", "/a", {}, b"RIFF")
        await stranger.aclose()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.ca_file))
        wire = Wire(base, 20.0, 20.0)
        for size in (4, 5_000_000):
            assert await read(await wire.ask("PUT", "/a", {}, bytes(size))) == b"RIFF"
        await wire.aclose()
        await ended.wait()
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert seen == [4, 5_000_000]
