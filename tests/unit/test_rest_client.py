"""The HTTP client of a source: tries, redirects, links, redaction, caps, and where credentials go."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.other_origin import OtherOrigin
from tests.support.peer import Peer, answer
from tests.support.rest import SECRET, Desk
from worker.errors import (
    BadAnswer,
    Retry,
    SessionExpired,
    SourceError,
    StopSource,
    Truncated,
    WaitUntil,
)
from worker.rest.client import Purpose, RestClient, segment, twice


async def test_a_call_returns_the_whole_answer(tmp_path: Path) -> None:
    """Method, path below the base, parameters, headers and JSON arrive; status, headers and body come back."""
    async with Peer([answer(b"hello", X_Kind="test")]) as peer, Desk(f"{peer.url}/proxy/", tmp_path) as desk:
        reply = await desk.rest.call(
            "POST",
            "/a%2Fb/c",
            purpose=Purpose.LIST,
            params={"from": "5 + 5&=", "page": 1},
            headers={"X-Auth-Token": "t"},
            json={"a": 1},
        )
        assert reply.url == f"{peer.url}/proxy/a%2Fb/c?from=5%20%2B%205%26%3D&page=1"
    assert (reply.status, reply.body, reply.headers["x-kind"]) == (200, b"hello", "test")
    (asked,) = peer.asked
    assert (asked.method, asked.target, asked.body) == (
        "POST",
        "/proxy/a%2Fb/c?from=5%20%2B%205%26%3D&page=1",
        b'{"a": 1}',
    )
    assert asked.headers["x-auth-token"] == "t"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["user-agent"].startswith("callvault/")


async def test_parameters_join_a_query_that_is_there(tmp_path: Path) -> None:
    """A path below the origin, with a query of its own, gets further parameters appended; a form is sent as one."""
    async with Peer([answer()]) as peer, Desk(f"{peer.url}/proxy", tmp_path) as desk:
        await desk.rest.call(
            "POST", "/x?a=1", purpose=Purpose.LIST, params={"b": "2"}, form={"user": "ü", "n": 1}, absolute=True
        )
    assert peer.asked[0].target == "/x?a=1&b=2"
    assert peer.asked[0].body == b"user=%C3%BC&n=1"


@pytest.mark.parametrize(
    ("text", "encoded"),
    [("a/b", "a%2Fb"), ("..", "%2E%2E"), (".", "%2E"), ("a.b", "a.b"), ("é?#%", "%C3%A9%3F%23%25"), ("\x01", "%01")],
)
def test_an_id_is_one_path_segment(text: str, encoded: str) -> None:
    """Nothing in an id can climb, split or end the path."""
    assert segment(text) == encoded


async def test_what_passes_is_tried_three_times(tmp_path: Path) -> None:
    """A metadata call survives two failures, waiting longer before each try; the third failure is handed up."""
    async with Peer([answer(status="503 Busy"), b"", answer(b"ok")]) as peer, Desk(peer.url, tmp_path) as desk:
        assert (await desk.rest.call("POST", "/", purpose=Purpose.LIST)).body == b"ok"
        assert 0.5 <= desk.clock.slept[0] <= 1
        assert 1 <= desk.clock.slept[1] <= 2
        peer.answers[:] = [answer(status="500 Oops")]
        peer.asked.clear()
        with pytest.raises(Retry, match="status 500"):
            await desk.rest.call("GET", "/", purpose=Purpose.DETAIL)
        assert len(peer.asked) == 3
        with pytest.raises(Retry):
            await desk.rest.call("GET", "/", purpose=Purpose.DETAIL, tries=1)
        assert len(peer.asked) == 4
        assert desk.free


async def test_a_call_must_be_allowed_one_try(tmp_path: Path) -> None:
    """No try at all is a programming error and says so."""
    async with Desk("http://127.0.0.1:9", tmp_path) as desk:
        with pytest.raises(AssertionError, match="unreachable"):
            await desk.rest.call("GET", "/", purpose=Purpose.LIST, tries=0)


async def test_a_long_answer_is_not_read(tmp_path: Path) -> None:
    """An answer beyond its ceiling is refused with the ceiling in the message."""
    async with Peer([answer(b"x" * 101)]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(BadAnswer, match="longer than 100 bytes"):
            await desk.rest.call("GET", "/", purpose=Purpose.LIST, max_bytes=100)
        assert (await desk.rest.call("GET", "/", purpose=Purpose.LIST, max_bytes=101)).body == b"x" * 101


# what answers mean


async def test_a_refusal_quotes_what_was_said(tmp_path: Path) -> None:
    """The message has source, method, path and a clean excerpt: no query, no secret, no control characters."""
    said = f"no\x1b[31m right\r\nfor {SECRET} or s3cret%2Fpass%20word%2B or my-token".encode()
    async with Peer([answer(said, status="403 Forbidden")]) as peer, Desk(peer.url, tmp_path) as desk:
        desk.rest.hide("my-token")
        desk.rest.hide("")
        with pytest.raises(StopSource) as caught:
            await desk.rest.call("GET", "/records/my-token", purpose=Purpose.LIST, params={"q": "secret"})
    assert str(caught.value) == (
        "hq: GET /records/***: status 403, no [31m right for *** or *** or ***; check user, password and rights"
    )


async def test_a_refusal_without_a_body_is_one_all_the_same(tmp_path: Path) -> None:
    """When the excerpt for the message does not come, the status still counts."""
    async with Peer([answer(status="404 Not Found", Content_Length="10")]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(StopSource, match=r"status 404; check `url`"):
            await desk.rest.call("GET", "/", purpose=Purpose.LIST)


@pytest.mark.parametrize(
    ("status", "headers", "paused"),
    [
        ("429 Slow", {}, 1),
        ("429 Slow", {"Retry_After": "5"}, 5),
        ("503 Busy", {"Retry_After": "5"}, 5),
        ("503 Busy", {}, None),
        ("500 Oops", {"Retry_After": "5"}, None),
    ],
)
async def test_who_asks_to_wait_is_left_alone(
    tmp_path: Path, status: str, headers: dict[str, str], paused: int | None
) -> None:
    """429, and 503 that says for how long, pause the whole source; others are only tried again."""
    async with Peer([answer(b"", status, **headers)]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(Retry):
            await desk.rest.call("GET", "/", purpose=Purpose.LIST, tries=1)
        pause = await desk.permits.paused("hq")
        assert (pause and (pause.until - desk.clock.now()).total_seconds()) == paused


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        ("429 Slow", {"Retry_After": "20"}, 20),
        ("429 Slow", {}, 1),
        ("503 Busy", {"Retry_After": "20"}, 20),
        ("403 Forbidden", {"Retry_After": "20"}, 20),
    ],
)
async def test_a_short_wait_costs_no_try(tmp_path: Path, status: str, headers: dict[str, str], seconds: int) -> None:
    """What was asked for is waited and the same request made again, though only one try is allowed."""
    busy = answer(b"", status, **headers)
    async with Peer([busy, busy, answer(b"ok")]) as peer, Desk(peer.url, tmp_path) as desk:
        reply = await desk.rest.call("POST", "/", purpose=Purpose.LIST, json={"a": 1}, tries=1)
        assert reply.body == b"ok"
        assert [seen.body for seen in peer.asked] == [b'{"a": 1}'] * 3
        assert sum(desk.clock.slept) == pytest.approx(2 * seconds, abs=0.1)
        assert desk.free


@pytest.mark.parametrize(("told", "requests"), [("25", 3), ("0", 21)])
async def test_short_waits_without_end_are_handed_up(tmp_path: Path, told: str, requests: int) -> None:
    """A minute of waiting is enough, and a wait of nothing counts three seconds, so that it comes to an end."""
    async with Peer([answer(status="429 Slow", Retry_After=told)]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(Retry, match=f"asked to wait {told} s"):
            await desk.rest.call("GET", "/", purpose=Purpose.LIST, tries=1)
        assert len(peer.asked) == requests
        assert desk.free


async def test_a_long_wait_is_for_the_caller_to_decide(tmp_path: Path) -> None:
    """A wait beyond a minute is not sat out: its seconds are handed up at once."""
    async with Peer([answer(status="429 Slow", Retry_After="61")]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(WaitUntil, match="asked to wait 61 s") as caught:
            await desk.rest.call("GET", "/", purpose=Purpose.LIST)
        assert caught.value.seconds == 61
        assert desk.clock.slept == []


async def test_a_pause_told_otherwise_holds_as_well(tmp_path: Path) -> None:
    """A connector may pause its source for a reason of its own; the next request waits."""
    async with Peer([answer()]) as peer, Desk(peer.url, tmp_path) as desk:
        await desk.rest.pause(30, "locked out")
        await desk.rest.call("GET", "/", purpose=Purpose.LIST)
        assert desk.clock.slept == [30]


async def test_within_a_held_slot_pauses_hold_and_the_slot_stays(tmp_path: Path) -> None:
    """Several requests share one slot, which is the caller's to give back, whatever happens to them."""
    async with Peer([answer(status="429 Slow", Retry_After="9"), answer()]) as peer, Desk(peer.url, tmp_path) as desk:
        slot = await desk.rest.slot()
        await desk.rest.call("GET", "/", purpose=Purpose.LIST, slot=slot)
        assert sum(desk.clock.slept) == pytest.approx(9, abs=0.01)
        peer.answers[:] = [answer(status="404 No")]
        with pytest.raises(StopSource):
            await desk.rest.call("GET", "/", purpose=Purpose.LIST, slot=slot)
        assert desk.permits.in_use("hq") == 1
        await slot.release()
        assert desk.free


@pytest.mark.parametrize("told", ["", "bytes 0-3/10", "bytes 6-9/10", "bytes */10"])
async def test_a_part_is_not_the_whole(tmp_path: Path, told: str) -> None:
    """206 to a request without a range is refused as truncated unless it holds everything."""
    part = answer(b"RIFF", status="206 Partial Content", Content_Range=told)
    async with Peer([part]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(Truncated, match="a part was sent"):
            await desk.rest.open("GET", "/", purpose=Purpose.MEDIA)
        assert desk.free
        peer.answers[:] = [answer(b"RIFF", status="206 Partial Content", Content_Range="bytes 0-3/4")]
        stream = await desk.rest.open("GET", "/", purpose=Purpose.MEDIA)
        assert await stream.read(10) == b"RIFF"
        await stream.aclose()


async def test_an_unknown_encoding_is_refused_and_the_slot_freed(tmp_path: Path) -> None:
    """A body in an encoding that was not asked for is no answer, and blocks nothing."""
    async with Peer([answer(b"x", Content_Encoding="br")]) as peer, Desk(peer.url, tmp_path) as desk:
        with pytest.raises(BadAnswer, match="encoding 'br'"):
            await desk.rest.open("GET", "/", purpose=Purpose.MEDIA)
        assert desk.free


# audio


async def test_audio_is_handed_on_and_documents_are_explained(tmp_path: Path) -> None:
    """What begins like audio is a stream; what begins like a document is read, capped, and becomes the error."""
    seen: list[bytes] = []

    def explain(body: bytes) -> SourceError:
        seen.append(body)
        return BadAnswer("no audio")

    page = b" <html>" + b"x" * 70_000
    async with Peer([answer(b"RIFF1234"), answer(page)]) as peer, Desk(peer.url, tmp_path) as desk:
        stream = await desk.rest.open_audio("GET", "/1", document=explain)
        assert await stream.read(100) == b"RIFF1234"
        await stream.aclose()
        with pytest.raises(BadAnswer, match="no audio"):
            await desk.rest.open_audio("GET", "/1", document=explain)
        assert seen == [page[: 64 * 1024]]
        peer.answers[:] = [answer(b"{", Content_Length="9")]
        with pytest.raises(Truncated):
            await desk.rest.open_audio("GET", "/1", document=explain)
        assert desk.free


# sessions of a source


async def test_cookies_are_kept_only_where_they_are_wanted(tmp_path: Path) -> None:
    """A source with cookies sends them back, another does not."""
    for cookies in (True, False):
        async with Peer([answer(Set_Cookie="JSESSIONID=abc; Path=/")]) as peer:
            async with Desk(peer.url, tmp_path, cookies=cookies) as desk:
                await desk.rest.call("GET", "/", purpose=Purpose.LIST)
                await desk.rest.call("GET", "/", purpose=Purpose.LIST)
            assert peer.asked[1].headers.get("cookie") == ("JSESSIONID=abc" if cookies else None)


async def test_proxies_of_the_environment_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials go to the source, not to whatever http_proxy names."""
    with OtherOrigin() as other:
        monkeypatch.setenv("http_proxy", other.url)
        async with Peer([answer(b"own")]) as peer, Desk(peer.url, tmp_path) as desk:
            assert (await desk.rest.call("GET", "/", purpose=Purpose.LIST)).body == b"own"
        assert other.requests == []


async def test_a_session_hides_its_token_and_keeps_it_for_its_identity(tmp_path: Path) -> None:
    """A token got once is used again by another client with the same credentials, and never shown."""
    logins: list[str] = []

    async def login() -> str:
        logins.append("made")
        return "token-1"

    async def use(token: str) -> str:
        return token

    for identity in ("api\npw", "api\npw", "api\nother"):
        async with Desk("http://pbx.example.net", tmp_path / "sessions") as desk:
            assert await desk.rest.session(login, identity).run(use) == "token-1"
            assert desk.rest.clean("with token-1 inside") == "with *** inside"
    assert len(logins) == 2
    assert oct((tmp_path / "sessions" / "hq.json").stat().st_mode & 0o777) == "0o600"


def test_text_for_messages_is_short_and_on_one_line(tmp_path: Path) -> None:
    """Long, many-lined or coloured text of a vendor's is made fit for a log."""
    rest: RestClient = Desk("http://pbx.example.net", tmp_path).rest
    assert rest.clean("a\n\tb\x1b[0m\u2028c") == "a b [0m c"
    assert len(rest.clean("x " * 5000)) <= 300


async def test_a_401_without_a_session_is_tried_twice() -> None:
    """A stray 401 is got over; one that stays means that user, password or token is wrong."""
    outcomes: list[Any] = [SessionExpired("no"), "fine"]

    async def call() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    assert await twice(call) == "fine"
    outcomes[:] = ["at once"]
    assert await twice(call) == "at once"
    outcomes[:] = [SessionExpired("no"), SessionExpired("no")]
    with pytest.raises(StopSource, match="no; check user name and password or token"):
        await twice(call)
    outcomes[:] = [SessionExpired("no"), SessionExpired("no")]
    with pytest.raises(Retry, match="no; check user name and password or token"):
        await twice(call, fatal=False)  # of one recording, after the listing was answered


@pytest.mark.parametrize(
    ("base", "link"),
    [
        ("http://pbx.example.net", "http://pbx.example.net:80/a?b=1"),
        ("http://pbx.example.net:80", "http://pbx.example.net/a?b=1"),
        ("https://pbx.example.net", "https://pbx.example.net:443/a?b=1"),
    ],
)
def test_the_schemes_own_port_need_not_be_written(tmp_path: Path, base: str, link: str) -> None:
    """A link with the default port leads to the same origin as one without."""
    assert Desk(base, tmp_path).rest.own(link) == "/a?b=1"


async def test_a_cancelled_request_frees_its_slot(tmp_path: Path) -> None:
    """Whoever is cancelled while the source has not answered yet leaves no slot and no connection behind."""
    came, never = asyncio.Event(), asyncio.Event()

    async def silent(_: asyncio.StreamWriter) -> None:
        came.set()
        await never.wait()

    async with Peer([silent]) as peer, Desk(peer.url, tmp_path) as desk:
        request = asyncio.create_task(desk.rest.open("GET", "/", purpose=Purpose.MEDIA))
        await came.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert desk.free


async def test_a_source_that_does_not_answer_is_tried_again_later(tmp_path: Path) -> None:
    """Silence after the request ends as something to retry, once the time-out is over."""
    never = asyncio.Event()

    async def silent(_: asyncio.StreamWriter) -> None:
        await never.wait()

    timeouts = aiohttp.ClientTimeout(total=None, sock_read=0.1)
    async with Peer([silent]) as peer, Desk(peer.url, tmp_path, timeouts=timeouts) as desk:
        with pytest.raises(Retry, match="no answer in time"):
            await desk.rest.call("POST", "/", purpose=Purpose.LIST, tries=1)
        assert desk.free
