"""How the simulated phone systems count the requests that are open: what the caps are judged by."""

import socket
from collections.abc import Iterator

import pytest
from aiohttp import web

from tests.support.simulator import Simulator
from tests.support.waiting import wait_for

ASK = b"GET / HTTP/1.1\r\nHost: pbx\r\n\r\n"


class Plain(Simulator):
    """A phone system that has one answer."""

    vendor = "plain"

    def routes(self) -> list[web.RouteDef]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=bytes(1000))

        return [web.get("/", answer)]

    def purpose_of(self, request: web.Request) -> tuple[str, str | None]:
        return "media", None


@pytest.fixture
def phones() -> Iterator[Plain]:
    """Return a phone system whose every answer stalls after a byte."""
    with Plain() as phones:
        phones.fault("stall", after=1)
        yield phones


def asking(phones: Plain) -> socket.socket:
    """Make a request and wait until its answer has begun."""
    client = socket.create_connection(("127.0.0.1", int(phones.url.rpartition(":")[2])), 20)
    client.sendall(ASK)
    assert client.recv(4) == b"HTTP"
    return client


def test_what_was_closed_before_is_not_counted(phones: Plain) -> None:
    """A client that closes one request in mid-answer and makes the next at once never has two open."""
    for _ in range(50):
        asking(phones).close()
    assert phones.most_at_once == 1
    wait_for(lambda: phones.at_once == 0, "the last one is noticed")


def test_what_stalls_is_counted(phones: Plain) -> None:
    """Requests that are open at the same time are counted as such, though nothing moves on any of them."""
    clients = [asking(phones) for _ in range(3)]
    assert phones.at_once == 3
    clients.pop().close()
    clients.append(asking(phones))
    assert phones.most_at_once == 3
    clients.append(asking(phones))
    assert phones.most_at_once == 4
    for client in clients:
        client.close()
