"""Large uploads on a store that fails at each stage: what is sent, what is aborted, what the caller hears."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from storage.errors import AlreadyExists, IntegrityError, StoreError, StoreRefused, StoreUnavailable
from storage.s3.upload import shielded
from storage.store import Upload, Written
from tests.contract.store_contract import digest
from tests.support.scripted_s3 import CUT, EVERYTHING, OK, Reply, ScriptedS3, Seen, begun, error, xml

PART = Reply(headers={"ETag": '"p&1"'})
DONE = xml("CompleteMultipartUploadResult", "<ETag>e</ETag>")
GONE = error(404, "NoSuchUpload", None)
ABORTED = Reply(204)
LATE_ERROR = Reply(200, b"<?xml version='1.0'?>\n  \n<Error><Code>InternalError</Code></Error>")


async def started(s3: ScriptedS3, **settings: object) -> Upload:
    """Begin an upload and send one part."""
    upload = await s3.store(**settings).upload("v1/a", content_type="audio/wav", metadata={"vendor": "x"})
    await upload.part(b"RIFF", digest(b"RIFF"))
    return upload


async def completed(s3: ScriptedS3, **settings: object) -> Written:
    """Upload one part and complete, in the way the archive does."""
    async with await s3.store(**settings).upload("v1/a", content_type="audio/wav") as upload:
        await upload.part(b"RIFF", digest(b"RIFF"))
        return await upload.complete()


async def test_what_an_upload_says() -> None:
    """Type, metadata and checksum algorithm at the beginning; part numbers, hashes; completion create-only."""
    told = Reply(headers={"ETag": '"p&1"', "x-amz-version-id": "v1"})
    async with ScriptedS3(begun("u/1"), told, PART, Reply(body=DONE.body, headers={"x-amz-version-id": "v9"})) as s3:
        upload = await started(s3)
        await upload.part(b"data", digest(b"data"))
        assert await upload.complete() == Written("v1/a", 8, "v9")
        first, one, two, last = s3.seen
        assert s3.said == [
            "POST /v1/a?uploads",
            "PUT /v1/a?partNumber=1&uploadId=u%2F1",
            "PUT /v1/a?partNumber=2&uploadId=u%2F1",
            "POST /v1/a?uploadId=u%2F1",
        ]
        assert first.headers["x-amz-checksum-algorithm"] == "SHA256"
        assert (first.headers["Content-Type"], first.headers["x-amz-meta-vendor"]) == ("audio/wav", "x")
        assert one.headers["x-amz-content-sha256"] == digest(b"RIFF")
        assert "x-amz-checksum-sha256" in two.headers
        assert last.headers["If-None-Match"] == "*"
        assert b'<Part><PartNumber>2</PartNumber><ETag>"p&amp;1"</ETag></Part></Complete' in last.body


async def test_a_part_that_arrived_differently_is_an_incident() -> None:
    """A checksum in the answer that is not the part's ends the upload."""
    part = Reply(headers={"ETag": '"p"', "x-amz-checksum-sha256": "bm90IG91cnM="})
    async with ScriptedS3(begun(), part, ABORTED) as s3:
        with pytest.raises(IntegrityError, match="bm90IG91cnM="):
            await completed(s3)
        assert s3.said[-1] == "DELETE /v1/a?uploadId=u1"


async def test_checksums_of_parts_are_repeated_at_the_end() -> None:
    """A store that keeps checksums is given each part's again, as AWS demands."""

    def echo(seen: Seen) -> Reply:
        return Reply(headers={"ETag": '"p"', "x-amz-checksum-sha256": seen.headers["x-amz-checksum-sha256"]})

    async with ScriptedS3(begun(), echo, DONE) as s3:
        await completed(s3)
        told = s3.seen[1].headers["x-amz-checksum-sha256"]
        assert f"<ChecksumSHA256>{told}</ChecksumSHA256>".encode() in s3.seen[2].body


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([begun(), error(403, "AccessDenied"), ABORTED], StoreRefused),
        ([begun(), PART, error(412, "PreconditionFailed"), ABORTED], AlreadyExists),
        ([begun(), PART, Reply(200, b"<Error><Code>PreconditionFailed</Code></Error>"), ABORTED], AlreadyExists),
        ([begun(), PART, error(409, "ConditionalRequestConflict"), ABORTED], StoreUnavailable),
        ([begun(), PART, GONE, Reply(404), ABORTED], StoreUnavailable),
        ([begun(), PART, GONE, OK, GONE], AlreadyExists),
        ([begun(), PART, error(404, "NoSuchBucket"), ABORTED], StoreRefused),
        ([begun(), PART, error(403, "AccessDenied"), error(403, "AccessDenied")], StoreRefused),
    ],
)
async def test_every_failure_aborts_and_keeps_its_name(script: list[Reply], kind: type[StoreError]) -> None:
    """The upload is aborted last, exactly once, and what the caller hears is the failure, not the abort's."""
    async with ScriptedS3(*script) as s3:
        with pytest.raises(kind):
            await completed(s3)
        assert [said for said in s3.said if said.startswith("DELETE")] == ["DELETE /v1/a?uploadId=u1"]
        assert s3.said[-1] == "DELETE /v1/a?uploadId=u1"
        assert len(s3.seen) == len(script)


async def test_a_lost_reply_of_the_completion_is_already_there() -> None:
    """The repeated completion finds no upload but the object: the caller compares."""
    async with ScriptedS3(begun(), PART, CUT, GONE, OK, GONE) as s3:
        with pytest.raises(AlreadyExists, match="already there"):
            await completed(s3)


async def test_an_error_inside_a_200_is_an_error() -> None:
    """S3 sends 200 first and may fail later: that is tried again, and nothing counts as written before."""
    async with ScriptedS3(begun(), PART, LATE_ERROR, DONE) as s3:
        assert await completed(s3) == Written("v1/a", 4, None)
        assert s3.said.count("POST /v1/a?uploadId=u1") == 2


async def test_a_version_that_only_head_tells_is_asked_for() -> None:
    """Where the bucket has versions and the completion is silent, the object itself is asked."""
    async with ScriptedS3(begun(), PART, DONE, Reply(headers={"x-amz-version-id": "v3"})) as s3:
        assert (await completed(s3, capabilities=replace(EVERYTHING, versioned=True))).version_id == "v3"
        assert s3.said[-1] == "HEAD /v1/a"


async def test_an_abort_that_fails_is_told_when_nothing_else_is() -> None:
    """Leaving without complete and without error tells that the abort failed."""

    async def leave() -> None:
        async with await started(s3):
            pass

    async with ScriptedS3(begun(), PART, error(403, "AccessDenied")) as s3:
        with pytest.raises(StoreRefused, match="AbortMultipartUpload"):
            await leave()


async def test_an_upload_without_id_is_trouble() -> None:
    """A store that begins an upload namelessly cannot be used for it."""
    async with ScriptedS3(xml("InitiateMultipartUploadResult", "")) as s3:
        with pytest.raises(StoreUnavailable, match="without giving its id"):
            await started(s3)


def slowly(reply: Reply, cancel: Callable[[], object]) -> Callable[[Seen], Reply]:
    """Answer only after the client has been cancelled."""

    def line(seen: Seen) -> Reply:
        cancel()
        return reply

    return line


@pytest.mark.parametrize("stage", range(4))
async def test_cancelled_at_any_stage_nothing_stays(stage: int) -> None:
    """Cancelled while the store answers the beginning, a part, the completion or the abort itself: aborted."""
    script: list[Reply] = [begun(), PART, error(400, "EntityTooSmall"), ABORTED]
    async with ScriptedS3(ABORTED) as s3:
        task = asyncio.create_task(completed(s3))
        s3.script = [*script[:stage], slowly(script[stage], task.cancel), *([] if stage == 3 else [ABORTED])]
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError)
        assert s3.said[-1] == "DELETE /v1/a?uploadId=u1"


async def test_an_impatient_second_cancellation_does_not_stop_the_abort() -> None:
    """Cancelled in a part and again while the abort is under way: the abort is tried until it is done."""
    async with ScriptedS3(ABORTED) as s3:
        task = asyncio.create_task(completed(s3))
        s3.script = [begun(), slowly(PART, task.cancel), slowly(Reply(503), task.cancel), ABORTED]
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError)
        assert s3.said[2:] == ["DELETE /v1/a?uploadId=u1"] * 2


async def test_shielded_work_that_is_cancelled_itself() -> None:
    """When the loop shuts down and cancels everything, nobody waits for ever and the cancellation is passed on."""

    async def work() -> None:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await shielded(work())


async def test_cancelled_while_the_beginning_fails() -> None:
    """There is no upload to abort then, and the cancellation is what the caller sees."""
    async with ScriptedS3(OK) as s3:
        task = asyncio.create_task(completed(s3))
        s3.script = [slowly(error(403, "AccessDenied"), task.cancel)]
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError)
        assert s3.said == ["POST /v1/a?uploads"]
