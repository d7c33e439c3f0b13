"""Create-only on a store that ignores If-None-Match: look before, count versions after."""

from dataclasses import replace

import pytest

from storage.errors import AlreadyExists, IntegrityError
from tests.contract.store_contract import digest, put
from tests.support.scripted_s3 import CUT, EVERYTHING, OK, Reply, ScriptedS3, begun, version_page, version_row

CARELESS = replace(EVERYTHING, create_only=False, create_only_multipart=False, versioned=True)
ABSENT = Reply(404)
WRITTEN = Reply(headers={"ETag": '"e1"', "x-amz-version-id": "v1"})
DONE = Reply(body=b"<CompleteMultipartUploadResult/>", headers={"x-amz-version-id": "v1"})


def versions(*etags: str) -> Reply:
    """Return a listing of versions of `a`, with a delete marker among them."""
    rows = [version_row("a", str(n), etag=etag) for n, etag in enumerate(etags)]
    return version_page(*rows, version_row("a", "d", marker=True))


async def test_what_is_there_is_not_written_over() -> None:
    """The key is looked up first, and nothing is sent when it is taken."""
    async with ScriptedS3(OK) as s3:
        with pytest.raises(AlreadyExists) as told:
            await put(s3.store(capabilities=CARELESS), "a")
        assert s3.said == ["HEAD /a"]
        assert told.value.key == "a"


async def test_a_single_version_is_success() -> None:
    """The condition the store does not heed is left out, and the versions are counted afterwards."""
    async with ScriptedS3(ABSENT, WRITTEN, versions("e1")) as s3:
        assert (await put(s3.store(capabilities=CARELESS), "a")).version_id == "v1"
        assert "If-None-Match" not in s3.seen[1].headers
        assert s3.seen[2].said.startswith("GET /?encoding-type=url&versions&prefix=a")


async def test_two_writers_of_the_same_bytes_are_told_to_compare() -> None:
    """Both learn that it is there; whoever looks finds the right bytes."""
    async with ScriptedS3(ABSENT, WRITTEN, versions("e1", "e1")) as s3:
        with pytest.raises(AlreadyExists, match="at the same time"):
            await put(s3.store(capabilities=CARELESS), "a")


async def test_two_writers_of_different_bytes_are_an_incident() -> None:
    """Different bytes under one key are never passed over."""
    async with ScriptedS3(ABSENT, WRITTEN, versions("e1", "e2")) as s3:
        with pytest.raises(IntegrityError, match="a has 2 versions with different bytes") as told:
            await put(s3.store(capabilities=CARELESS), "a")
        assert told.value.key == "a"


async def test_overwriting_on_purpose_looks_at_nothing() -> None:
    """Without create_only there is one request."""
    async with ScriptedS3(WRITTEN) as s3:
        await put(s3.store(capabilities=CARELESS), "a", create_only=False)
        assert s3.said == ["PUT /a"]


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [(OK, None, AlreadyExists), (ABSENT, ("e1", "e2"), IntegrityError), (ABSENT, ("e1",), None)],
)
async def test_uploads_look_before_and_after_too(
    before: Reply, after: tuple[str, ...] | None, outcome: type[Exception] | None
) -> None:
    """The same for a large object; what was completed is not aborted any more."""
    script = [begun(), OK, before, *([DONE, versions(*after)] if after else [Reply(204)])]

    async def whole() -> str | None:
        async with await s3.store(capabilities=CARELESS).upload("a", content_type="audio/wav") as upload:
            await upload.part(b"RIFF", digest(b"RIFF"))
            return (await upload.complete()).version_id

    async with ScriptedS3(*script) as s3:
        if outcome:
            with pytest.raises(outcome):
                await whole()
        else:
            assert await whole() == "v1"
        assert len(s3.seen) == len(script)
        assert all("If-None-Match" not in seen.headers for seen in s3.seen)


async def test_checksum_headers_are_left_out_where_they_are_refused() -> None:
    """No request carries them then; the signed payload hash stays."""
    can = replace(EVERYTHING, checksum=False, checksum_headers=False)
    async with ScriptedS3(OK, begun(), OK, Reply(body=b"<CompleteMultipartUploadResult/>")) as s3:
        store = s3.store(capabilities=can)
        await put(store, "a")
        async with await store.upload("b", content_type="audio/wav") as upload:
            await upload.part(b"RIFF", digest(b"RIFF"))
            await upload.complete()
        told = {name.lower() for seen in s3.seen for name in seen.headers}
        assert not {name for name in told if "checksum" in name}
        assert s3.seen[2].headers["x-amz-content-sha256"] == digest(b"RIFF")


async def test_a_write_whose_answer_was_lost_is_looked_up_before_it_is_repeated() -> None:
    """The store took it: a second write would leave a second version for ever."""
    async with ScriptedS3(ABSENT, CUT, OK) as s3:
        with pytest.raises(AlreadyExists):
            await put(s3.store(capabilities=CARELESS), "a")
        assert s3.said == ["HEAD /a", "PUT /a", "HEAD /a"]


async def test_a_completion_whose_answer_was_lost_is_looked_up_before_it_is_repeated() -> None:
    """The same for an upload in parts."""
    async with ScriptedS3(begun(), OK, ABSENT, CUT, OK) as s3:
        upload = await s3.store(capabilities=CARELESS).upload("a", content_type="audio/wav")
        async with upload:
            await upload.part(b"data", digest(b"data"))
            with pytest.raises(AlreadyExists):
                await upload.complete()
        assert s3.said[2:5] == ["HEAD /a", "POST /a?uploadId=u1", "HEAD /a"]


async def test_a_write_that_never_arrived_is_repeated() -> None:
    """Nothing is there after the answer was lost: the write is sent again."""
    async with ScriptedS3(ABSENT, CUT, ABSENT, WRITTEN, versions("e1")) as s3:
        assert (await put(s3.store(capabilities=CARELESS), "a")).version_id == "v1"
        assert s3.said[:4] == ["HEAD /a", "PUT /a", "HEAD /a", "PUT /a"]
