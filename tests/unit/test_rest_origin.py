"""Redirects and links: followed within the source's own origin, refused elsewhere before anything is sent."""

from pathlib import Path

import pytest

from storage.sidecar import GapReason
from tests.support.other_origin import OtherOrigin
from tests.support.peer import Peer, answer
from tests.support.rest import Desk
from worker.errors import (
    BadAnswer,
    GiveUp,
    SourceError,
    StopSource,
)
from worker.rest.client import Purpose


@pytest.mark.parametrize(("status", "method", "body"), [("307 T", "POST", b'{"a": 1}'), ("303 S", "GET", b"")])
async def test_redirects_within_the_origin_are_followed(tmp_path: Path, status: str, method: str, body: bytes) -> None:
    """The request is repeated as it was, or as a GET where the status says so, headers included."""
    answers = [answer(status=status, Location="../new?x=1"), answer(b"ok")]
    async with Peer([*answers]) as peer, Desk(f"{peer.url}/api", tmp_path) as desk:
        reply = await desk.rest.call(
            "POST", "/old/page", purpose=Purpose.LIST, json={"a": 1}, headers={"X-Auth-Token": "t"}, tries=1
        )
    assert reply.body == b"ok"
    assert (peer.asked[1].method, peer.asked[1].target, peer.asked[1].body) == (method, "/api/new?x=1", body)
    assert peer.asked[1].headers["x-auth-token"] == "t"


async def test_redirects_without_end_are_cut(tmp_path: Path) -> None:
    """More than three redirects, or one without a place to go, end as a bad answer."""
    async with Peer([answer(status="302 Found")]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(BadAnswer, match="more than 3 times"):
            await desk.rest.call("GET", "/", purpose=Purpose.LIST, tries=1)
        assert len(peer.asked) == 4
        assert desk.free


@pytest.mark.parametrize(
    ("purpose", "error"), [(Purpose.LOGIN, StopSource), (Purpose.LIST, StopSource), (Purpose.MEDIA, GiveUp)]
)
async def test_redirects_to_another_origin_are_refused(
    tmp_path: Path, purpose: Purpose, error: type[SourceError]
) -> None:
    """Nothing is sent there; the source stops where all recordings are concerned, else one is given up."""
    with OtherOrigin() as other:
        away = answer(status="302 Found", Location=f"{other.url}/x?token=t")
        async with Peer([away]) as peer, Desk(peer.url, tmp_path) as desk:
            with pytest.raises(error, match=r"leads away from .*/x \(not followed") as caught:
                await desk.rest.call("GET", "/", purpose=purpose, headers={"Authorization": "Basic x"})
            assert desk.free
        assert other.requests == []
    assert "token=t" not in str(caught.value)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("/v1/next?page=2", "/v1/next?page=2"),
        ("next?a=1%2B2%26%3D&b=c%20d", "/api/next?a=1%2B2%26%3D&b=c%20d"),
        ("a%2Fb/c", "/api/a%2Fb/c"),
        ("http://PBX.example.net:8088/x", "/x"),
        ("//pbx.example.net:8088/y", "/y"),
        ("", "/api/list?page=1"),
    ],
)
async def test_links_of_the_own_origin_become_paths(tmp_path: Path, link: str, expected: str) -> None:
    """Absolute and relative links alike, with their query as it was written."""
    async with Desk("http://pbx.example.net:8088/api", tmp_path) as desk:
        assert desk.rest.own(link, "http://pbx.example.net:8088/api/list?page=1") == expected


async def test_links_without_a_page_are_relative_to_the_base(tmp_path: Path) -> None:
    """A relative link is below the source's own address where no other is given."""
    async with Desk("http://pbx.example.net/api/", tmp_path) as desk:
        assert desk.rest.own("media/1") == "/media/1"


@pytest.mark.parametrize(
    "link",
    [
        "https://pbx.example.net:8088/x",
        "http://pbx.example.net/x",
        "http://pbx.example.net:8088@evil.example.net/",
        "http://api:pw@pbx.example.net:8088/x",
        "//evil.example.net/x",
        "http://[::1",
        "http://pbx.example.net:99999/",
        "file:///etc/passwd",
        "mailto:x@example.net",
    ],
)
async def test_links_elsewhere_are_refused(tmp_path: Path, link: str) -> None:
    """Another scheme, port, host, a user in the link and nonsense are a foreign origin."""
    async with Desk("http://pbx.example.net:8088/api", tmp_path) as desk:
        with pytest.raises(GiveUp, match="leads away") as caught:
            desk.rest.own(link)
        assert caught.value.reason is GapReason.FOREIGN_ORIGIN
