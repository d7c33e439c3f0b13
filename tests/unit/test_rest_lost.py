"""A request whose slot is lost: it ends at once, at the phone system too, and what it brought is not believed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.peer import Peer, answer
from tests.support.rest import Desk
from worker.errors import Retry
from worker.rest.client import Purpose
from worker.rest.media import BodyStream

AUDIO = bytes(range(256)) * 8
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
NO_LENGTH = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n"
HEAD_ONLY = b"HTTP/1.1 200 OK\r\nX-Slow: "
REFUSAL = b"HTTP/1.1 500 Oops\r\nContent-Length: 100000\r\n\r\n"


class Slow:
    """A phone system that says something and then drips for ever; `cut` is set once its connection is gone."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cut = asyncio.Event()

    def saying(self, text: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
        async def answering(writer: asyncio.StreamWriter) -> None:
            try:
                writer.write(text)
                while True:
                    await writer.drain()
                    self.begun.set()
                    await asyncio.sleep(0.005)
                    writer.write(b"x")
            except ConnectionError:
                self.cut.set()

        return answering


@pytest.fixture
def slow() -> Slow:
    """Return a slow phone system."""
    return Slow()


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[Peer]:
    """Return a server without answers yet."""
    async with Peer() as peer:
        yield peer


@pytest_asyncio.fixture
async def desk(peer: Peer, tmp_path: Path) -> AsyncIterator[Desk]:
    """Return a client of that server."""
    async with Desk(peer.url, tmp_path) as desk:
        yield desk
        assert desk.free


async def read(stream: BodyStream) -> bytes:
    """Read and close."""
    try:
        return b"".join([chunk async for chunk in stream.chunks()])
    finally:
        await stream.aclose()


async def test_waiting_for_an_answer(slow: Slow, peer: Peer, desk: Desk) -> None:
    """Before the answer is there the connection is closed, and the request may be made again."""
    peer.answers[:] = [slow.saying(HEAD_ONLY)]
    asking = asyncio.create_task(desk.rest.open("GET", "/x", purpose=Purpose.MEDIA))
    await slow.begun.wait()
    desk.lose_permits()
    with pytest.raises(Retry, match="GET /x: lost the right to have a request open"):
        await asking
    await asyncio.wait_for(slow.cut.wait(), 20)


async def test_in_the_middle_of_a_refusal(slow: Slow, peer: Peer, desk: Desk) -> None:
    """While the text of a refusal is waited for the connection is closed; its status has been said all the same."""
    lost = asyncio.Event()

    async def refusing(writer: asyncio.StreamWriter) -> None:
        desk.clock.advance(40)
        writer.write(REFUSAL)
        await lost.wait()
        await slow.saying(b"")(writer)

    peer.answers[:] = [refusing]
    asking = asyncio.create_task(desk.rest.open("GET", "/x", purpose=Purpose.MEDIA))
    while not peer.asked or desk.gate.idle_seconds():  # noqa: ASYNC110 - until the status is there
        await asyncio.sleep(0)
    desk.lose_permits()
    with pytest.raises(Retry, match="GET /x: status 500"):
        await asyncio.wait_for(asking, 20)  # its text would be waited for for longer
    lost.set()
    await asyncio.wait_for(slow.cut.wait(), 20)


@pytest.mark.parametrize("text", [LENGTH, NO_LENGTH, CHUNKED])
@pytest.mark.parametrize("reader", ["waits", "is busy"])
async def test_in_the_middle_of_a_body(slow: Slow, peer: Peer, desk: Desk, text: bytes, reader: str) -> None:
    """Whatever announces the end of the body, it is no whole one, whether its reader waits for it or looks later."""
    peer.answers[:] = [slow.saying(text + AUDIO)]
    stream = await desk.rest.open("GET", "/x", purpose=Purpose.MEDIA)
    assert await stream.peek() == AUDIO[:512]
    reading = asyncio.create_task(read(stream))
    if reader == "waits":
        await asyncio.sleep(0)
    desk.lose_permits()
    with pytest.raises(Retry, match="GET /x: lost the right to have a request open"):
        await reading
    await asyncio.wait_for(slow.cut.wait(), 20)


async def test_what_came_whole_is_kept(peer: Peer, desk: Desk) -> None:
    """A body that has come to its end is no open request any more: it is read though the slot is lost."""
    peer.answers[:] = [answer(AUDIO)]
    stream = await desk.rest.open("GET", "/x", purpose=Purpose.MEDIA)
    while not stream._response.content.is_eof():  # noqa: ASYNC110 - bytes arrive
        await asyncio.sleep(0)
    desk.lose_permits()
    assert await read(stream) == AUDIO


async def test_no_further_request_in_a_lost_slot(peer: Peer, desk: Desk) -> None:
    """Who holds a slot over several requests makes no further one in it, and gets on with a new slot."""
    peer.answers[:] = [answer(b"one")]
    slot = await desk.rest.slot()
    await desk.rest.call("GET", "/one", purpose=Purpose.DETAIL, slot=slot)
    desk.lose_permits()
    with pytest.raises(Retry, match="lost the right"):
        await desk.rest.call("GET", "/two", purpose=Purpose.DETAIL, slot=slot)
    await slot.release()
    await desk.rest.call("GET", "/three", purpose=Purpose.DETAIL)
    assert [asked.target for asked in peer.asked] == ["/one", "/three"]


async def test_a_lost_metadata_call_is_made_again(slow: Slow, peer: Peer, desk: Desk) -> None:
    """A listing that was ended is asked for once more, in a slot of its own."""
    peer.answers[:] = [slow.saying(LENGTH), answer(b"listed")]
    calling = asyncio.create_task(desk.rest.call("GET", "/x", purpose=Purpose.LIST))
    await slow.begun.wait()
    desk.lose_permits()
    assert (await calling).body == b"listed"
