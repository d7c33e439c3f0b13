"""How requests reach the store: what is sent, what is tried again and how long, what is given up."""

import asyncio
import base64
import hashlib
from datetime import UTC, datetime

import pytest

from storage.errors import AlreadyExists, IntegrityError, StoreRefused, StoreUnavailable
from storage.s3.store import S3Store
from storage.s3.transport import Patience
from storage.store import ObjectInfo
from tests.contract.store_contract import digest, put
from tests.support.clock import FakeClock
from tests.support.s3 import archive_at
from tests.support.scripted_s3 import CUT, EVERYTHING, OK, Reply, ScriptedS3, error

HASH = digest(b"RIFF")


async def test_a_put_carries_one_hash_in_three_places() -> None:
    """Signed payload hash, checksum with its algorithm, metadata; create-only; a plain body with its length."""
    async with ScriptedS3(OK) as s3:
        await s3.store().put("v1/a~2F.wav", b"RIFF", sha256=HASH, content_type="audio/wav", metadata={"sha256": HASH})
        (seen,) = s3.seen
    assert seen.said == "PUT /v1/a~2F.wav"
    assert seen.body == b"RIFF"
    wanted = {
        "x-amz-content-sha256": HASH,
        "x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"RIFF").digest()).decode(),
        "x-amz-sdk-checksum-algorithm": "SHA256",
        "x-amz-meta-sha256": HASH,
        "If-None-Match": "*",
        "Content-Type": "audio/wav",
        "Content-Length": "4",
    }
    assert {name: seen.headers.get(name) for name in wanted} == wanted
    assert not {"Transfer-Encoding", "x-amz-trailer", "Content-Encoding", "Expect"} & set(seen.headers)
    signed = seen.headers["Authorization"]
    assert all(name.lower() in signed for name in wanted if name != "Content-Length")
    assert "host;" in signed


async def test_nothing_is_compressed_on_the_way_back() -> None:
    """Answers are asked for as they are, or a length would not be the object's."""
    async with ScriptedS3(Reply(body=b"abc")) as s3:
        assert await s3.store().get("a", max_bytes=3) == b"abc"
        assert s3.seen[0].headers["Accept-Encoding"] == "identity"
        assert "Content-Type" not in s3.seen[0].headers


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(500),
        Reply(502, b"<html>Bad gateway</html>"),
        error(503, "SlowDown"),
        error(503, "ServiceUnavailable", None),
        Reply(504),
        Reply(429),
        error(400, "RequestTimeout"),
        error(409, "ConditionalRequestConflict"),
        error(409, "OperationAborted"),
        Reply(409),
    ],
)
async def test_trouble_that_passes_is_tried_again(trouble: Reply) -> None:
    """The same bytes are sent again after a growing wait, with a fresh signature; nobody hears of it."""
    async with ScriptedS3(trouble, trouble, OK) as s3:
        await put(s3.store(), "a", b"RIFF")
        assert [seen.body for seen in s3.seen] == [b"RIFF"] * 3
        first, second = s3.clock.slept
        assert 0.25 <= first <= 0.5 <= second <= 1.0
        assert s3.seen[0].headers["X-Amz-Date"] <= s3.seen[1].headers["X-Amz-Date"]


async def test_a_cut_connection_is_tried_again() -> None:
    """On a kept connection as on a new one: all bytes are sent anew."""
    async with ScriptedS3(CUT, CUT, CUT, OK) as s3:
        await put(s3.store(), "a", b"RIFF")
        assert [seen.body for seen in s3.seen] == [b"RIFF"] * 4


async def test_a_store_that_cuts_every_connection_is_unavailable() -> None:
    """The sentence says so."""
    async with ScriptedS3(CUT) as s3:
        with pytest.raises(StoreUnavailable, match="the connection was cut, after 4 tries"):
            await put(s3.store(), "a")


async def test_tries_are_bounded() -> None:
    """After four tries the store counts as unavailable; what happened last is said, the key is named."""
    async with ScriptedS3(error(503, "SlowDown")) as s3:
        with pytest.raises(
            StoreUnavailable, match=r"bucket calls.*PutObject of a.*503 SlowDown, after 4 tries"
        ) as told:
            await put(s3.store(), "a")
        assert len(s3.seen) == 4
        assert told.value.key == "a"


@pytest.mark.parametrize(("told", "waits"), [("7", 7.0), ("3600", 30.0), ("soon", None), ("", None)])
async def test_retry_after_is_honoured_and_capped(told: str, waits: float | None) -> None:
    """Seconds are waited for up to half a minute; what is no number is as if it were not there."""
    async with ScriptedS3(Reply(503, headers={"Retry-After": told}), OK) as s3:
        await put(s3.store(), "a")
        (slept,) = s3.clock.slept
        assert slept == waits if waits else slept <= 0.5


async def test_a_lost_reply_becomes_already_there() -> None:
    """A try whose answer was lost has written: the second is told 412, and the caller is to compare."""
    async with ScriptedS3(CUT, error(412, "PreconditionFailed")) as s3:
        with pytest.raises(AlreadyExists):
            await put(s3.store(), "a")
        assert s3.said == ["PUT /a", "PUT /a"]


@pytest.mark.parametrize("size", [1_000, 3_000_000])
async def test_bodies_larger_than_a_slice_arrive_whole_each_time(size: int) -> None:
    """A body of any size is sent from its beginning in every try, connections that were cut in between included."""
    body = bytes(range(250)) * (size // 250)
    async with ScriptedS3(OK, CUT, Reply(500), OK) as s3:
        store = s3.store()
        await put(store, "first")
        await put(store, "a", body)
        assert {digest(seen.body) for seen in s3.seen[1:]} == {digest(body)}


async def test_a_body_cut_short_is_read_again() -> None:
    """An object that ends early is no object: it is read once more from its beginning, for bytes and for hashes."""
    short = Reply(body=b"RI", short=2)
    async with ScriptedS3(short, Reply(body=b"RIFF"), short, Reply(body=b"RIFF")) as s3:
        assert await s3.store().get("a", max_bytes=4) == b"RIFF"
        assert await s3.store().sha256("a") == HASH


async def test_a_store_that_ends_early_each_time_is_unavailable() -> None:
    """The sentence says that the answer ended early."""
    async with ScriptedS3(Reply(body=b"RI", short=2)) as s3:
        with pytest.raises(StoreUnavailable, match="ended early"):
            await s3.store().get("a", max_bytes=4)


async def test_a_silent_store_is_given_up() -> None:
    """Without an answer in time the next try is made, and in the end the store is unavailable."""
    async with ScriptedS3(Reply(hang=True)) as s3:
        store = s3.store(patience=Patience(silence=0.05, tries=2))
        with pytest.raises(StoreUnavailable, match="no answer in time, after 2 tries"):
            await put(store, "a")


async def test_a_store_that_takes_bytes_too_slowly_is_given_up() -> None:
    """Sending is bounded too: a server that stops reading does not hold a transfer for ever."""

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.transport.abort()
        gone.set()

    done, gone = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(never_read, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    patience = Patience(connect=0.1, silence=0.1, slowest=10**12, tries=1)
    store = S3Store(
        archive_at(f"http://127.0.0.1:{port}", "calls"), FakeClock(), patience=patience, capabilities=EVERYTHING
    )
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        await put(store, "a", bytes(32 * 2**20))  # more than the sockets' buffers hold
    done.set()
    await gone.wait()
    await store.aclose()
    server.close()
    await server.wait_closed()


async def test_a_store_that_is_not_there_is_unavailable() -> None:
    """Nobody listens: the sentence names the host and says that no connection could be made."""
    async with ScriptedS3(OK) as s3:
        archive = s3.archive
    store = S3Store(archive, FakeClock(), capabilities=EVERYTHING)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:\d+: PutObject of a: no connection could be made \("):
        await put(store, "a")
    await store.aclose()


async def test_what_is_no_http_is_unavailable() -> None:
    """A server that speaks another protocol is told from one that is away."""

    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.net\r\n\r\n")

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(chatter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = S3Store(archive_at(f"http://127.0.0.1:{port}", "calls"), FakeClock())
    with pytest.raises(StoreUnavailable, match=r"the exchange failed \(NotHttp: no status line\)"):
        await store.head("a")
    await store.aclose()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)  # the loop closes what was aborted
    server.close()
    await server.wait_closed()


async def test_an_untrusted_certificate_is_refused_at_once() -> None:
    """TLS that fails is somebody's to correct: no try is repeated."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clock = FakeClock()
    store = S3Store(archive_at(f"https://127.0.0.1:{port}", "calls"), clock)
    with pytest.raises(StoreRefused, match=r"archive\.endpoint_url or the machine's CA"):
        await store.head("a")
    assert clock.slept == []
    await store.aclose()
    server.close()
    await server.wait_closed()


async def test_what_the_store_says_it_received_is_compared() -> None:
    """A checksum in the answer that is not the body's is an incident."""
    async with ScriptedS3(Reply(headers={"x-amz-checksum-sha256": "bm90IG91cnM="})) as s3:
        with pytest.raises(IntegrityError, match="bm90IG91cnM="):
            await put(s3.store(), "a")


async def test_the_same_checksum_is_fine() -> None:
    """A store that repeats our checksum has what we sent; its version is told, and `null` is none."""
    told = base64.b64encode(hashlib.sha256(b"RIFF").digest()).decode()
    async with ScriptedS3(
        Reply(headers={"x-amz-checksum-sha256": told, "x-amz-version-id": "v7"}),
        Reply(headers={"x-amz-version-id": "null"}),
    ) as s3:
        assert (await put(s3.store(), "a")).version_id == "v7"
        assert (await put(s3.store(), "b")).version_id is None


async def test_head_reads_headers() -> None:
    """Size, time, version and metadata come from the headers; a store without Last-Modified has no time."""
    full = {
        "Last-Modified": "Thu, 05 Mar 2026 12:00:00 GMT",
        "x-amz-version-id": "v1",
        "X-Amz-Meta-Sha256": HASH,
    }
    async with ScriptedS3(Reply(body=b"RIFF", headers=full), Reply()) as s3:
        info = await s3.store().head("a")
        assert info == ObjectInfo("a", 4, datetime(2026, 3, 5, 12, tzinfo=UTC), "v1", {"sha256": HASH})
        bare = await s3.store().head("a")
        assert bare is not None
        assert bare.modified == datetime.min.replace(tzinfo=UTC)


async def test_requests_at_once_are_bounded_and_connections_kept() -> None:
    """A hundred requests use at most 32 connections, and waiting for one is no time-out."""
    async with ScriptedS3(OK) as s3:
        store = s3.store()
        await asyncio.gather(*(put(store, f"k{n}") for n in range(100)))
        assert 0 < store._transport._wire.kept <= 32
        assert len(s3.seen) == 100


async def test_an_endless_answer_is_cut() -> None:
    """No more than 16 MiB of a listing are read; what is cut off makes it unreadable, which is said."""
    async with ScriptedS3(Reply(body=b"<ListBucketResult>" + b" " * (17 * 2**20))) as s3:
        with pytest.raises(StoreUnavailable, match="not XML"):
            await s3.store().folders("v1/")
