"""Certificates of phone systems: verified by default, by a CA file, or by a pinned fingerprint; never off."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.peer import Peer, answer
from tests.support.rest import Desk
from tests.support.tls import Certificate, self_signed
from worker.errors import Retry, StopSource
from worker.rest.client import Purpose


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a self-signed certificate for 127.0.0.1."""
    return self_signed(tmp_path_factory.mktemp("tls"))


async def ask(desk: Desk) -> bytes:
    """Make one request with a credential."""
    reply = await desk.rest.call("GET", "/", purpose=Purpose.LIST, headers={"X-Auth-Token": "t"}, tries=1)
    return reply.body


async def test_a_self_signed_certificate_is_refused(certificate: Certificate, tmp_path: Path) -> None:
    """Without further word the usual CAs decide: nothing is sent, and the message names both ways out."""
    async with Peer([answer(b"x")], tls=certificate.server) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(StopSource, match="could not be verified; give the CA in `ca_file` or pin"):
            await ask(desk)
        assert peer.asked == []
        assert desk.free


async def test_a_ca_file_makes_it_good(certificate: Certificate, tmp_path: Path) -> None:
    """With the CA the certificate is verified, host name included."""
    async with Peer([answer(b"x")], tls=certificate.server) as peer:
        async with Desk(peer.url, tmp_path, ca_file=certificate.ca_file) as desk:
            assert await ask(desk) == b"x"
        async with Desk(peer.url.replace("127.0.0.1", "localhost"), tmp_path, ca_file=certificate.ca_file) as desk:
            with pytest.raises(StopSource, match="could not be verified"):
                await ask(desk)


@pytest.mark.parametrize("form", [str, str.upper])
async def test_a_pinned_fingerprint_makes_it_good(certificate: Certificate, tmp_path: Path, form: type[str]) -> None:
    """The SHA-256 of the certificate is enough, whoever signed it and whatever it is called."""
    async with Peer([answer(b"x")], tls=certificate.server) as peer:
        url = peer.url.replace("127.0.0.1", "localhost")
        async with Desk(url, tmp_path, tls_fingerprint=form(certificate.fingerprint)) as desk:
            assert await ask(desk) == b"x"


async def test_another_fingerprint_is_refused(certificate: Certificate, tmp_path: Path) -> None:
    """A certificate that is not the pinned one gets no request, even where a CA would vouch for it."""
    async with Peer([answer(b"x")], tls=certificate.server) as peer:
        async with Desk(peer.url, tmp_path, ca_file=certificate.ca_file, tls_fingerprint="ab" * 32) as desk:
            with pytest.raises(StopSource, match="not the one in `tls_fingerprint`"):
                await ask(desk)
        assert peer.asked == []


async def test_tls_to_a_server_without_it_is_explained(tmp_path: Path) -> None:
    """An https address whose port speaks plain HTTP is not called a wrong certificate."""

    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status="400 Bad Request"))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, Desk(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", tmp_path) as desk:
        with pytest.raises(Retry, match=r"could not speak TLS .*is `url` https, and its port right\?"):
            await ask(desk)


@pytest.mark.parametrize(
    "keys", [{"ca_file": Path("/no/such/ca.pem")}, {"ca_file": Path(__file__)}, {"tls_fingerprint": "abcd"}]
)
async def test_unusable_tls_settings_stop_the_source(tmp_path: Path, keys: dict[str, Any]) -> None:
    """A CA file that is missing or none, and a pin of the wrong length, are for somebody to correct."""
    async with Desk("https://127.0.0.1:9", tmp_path, **keys) as desk:
        with pytest.raises(StopSource, match="`ca_file` or `tls_fingerprint` cannot be used"):
            await ask(desk)
        assert desk.free
