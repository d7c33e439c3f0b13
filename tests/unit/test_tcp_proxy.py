"""The faulty connection that tests put between two parts: each mode does what it says, to open connections too."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_for


@pytest.fixture
def echo() -> Iterator[int]:
    """Return the port of a server that sends everything back."""

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(1000):
                    connection.sendall(piece)
            except ConnectionError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


@pytest.fixture
def proxy(echo: int) -> Iterator[TcpProxy]:
    """Return a proxy in front of that server."""
    with TcpProxy(echo) as proxy:
        yield proxy


@contextmanager
def connected(proxy: TcpProxy) -> Iterator[socket.socket]:
    """Connect to the proxy."""
    with socket.create_connection((proxy.host, proxy.port), 20) as client:
        yield client


def asked(client: socket.socket, text: bytes) -> bytes:
    """Send something and return what comes back."""
    client.sendall(text)
    return client.recv(1000)


def mute(client: socket.socket) -> bool:
    """Tell whether nothing comes, for a moment."""
    client.settimeout(0.2)
    try:
        client.recv(1000)
    except TimeoutError:
        return True
    finally:
        client.settimeout(20)
    return False


def gone(proxy: TcpProxy) -> bool:
    """Tell whether a new connection ends at once, by a reset or in order."""
    try:
        with connected(proxy) as client:
            return asked(client, b"anybody?") == b""
    except ConnectionError:
        return True


def test_bytes_pass_and_ends_do_too(proxy: TcpProxy) -> None:
    """In `pass` and in `slow` all arrives, and a closed connection is closed on the other side."""
    with connected(proxy) as client:
        assert asked(client, b"one") == b"one"
        proxy.mode = "slow"
        assert asked(client, b"two") == b"two"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    wait_for(lambda: proxy.connections == 0, "the proxy has let go")


def test_what_is_held_back_arrives_late(proxy: TcpProxy) -> None:
    """In `hold` nothing arrives and nothing is closed; back in `pass` it comes after all."""
    with connected(proxy) as client:
        assert asked(client, b"one") == b"one"
        proxy.mode = "hold"
        client.sendall(b"two")
        assert mute(client)
        proxy.mode = "pass"
        assert client.recv(10) == b"two"


def test_what_is_swallowed_is_gone(proxy: TcpProxy) -> None:
    """After `swallow` the connection that lost something stays open and mute; others and new ones are well."""
    with connected(proxy) as client, connected(proxy) as other:
        assert asked(client, b"one") == asked(other, b"one")
        proxy.mode = "swallow"
        client.sendall(b"two")
        assert mute(client)
        proxy.mode = "pass"
        client.sendall(b"three")
        assert mute(client)
        assert asked(other, b"four") == b"four"
        with connected(proxy) as fresh:
            assert asked(fresh, b"five") == b"five"
    wait_for(lambda: proxy.connections == 0, "the proxy has let go of all three")


def test_what_is_cut_is_reset(proxy: TcpProxy) -> None:
    """In `cut` open connections are reset, and every new one; afterwards the same port serves again."""
    with connected(proxy) as client:
        assert asked(client, b"one") == b"one"
        proxy.mode = "cut"
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    assert gone(proxy)
    proxy.mode = "pass"
    with connected(proxy) as client:
        assert asked(client, b"three") == b"three"


def test_a_target_that_is_not_there_resets(echo: int) -> None:
    """Where nobody listens the client is told so by a reset or an end, and the proxy lives on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    with TcpProxy(nobody) as proxy:
        assert gone(proxy)
        wait_for(lambda: proxy.connections == 0, "the proxy has let go")
