"""Locks in S3: sent with the bytes, read back, repaired, and an incident where nothing helps."""

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from config.events import Event
from config.retention import LockMode
from storage.errors import AlreadyExists, LockMissing, NoObjectLock, ObjectMissing, StoreRefused
from storage.lock import Lock
from storage.s3 import locking
from storage.store import Protection, Written
from tests.support.scripted_s3 import EVERYTHING, Reply, ScriptedS3, begun, error, version_page, version_row, xml

BODY = b"RIFF"
HASH = hashlib.sha256(BODY).hexdigest()
UNTIL = datetime(2033, 3, 4, 10, 30, tzinfo=UTC)
LOCK = Lock(LockMode.GOVERNANCE, UNTIL)
LOCKING = replace(EVERYTHING, versioned=True, object_lock=True)
WRITTEN = Reply(headers={"ETag": '"e1"', "x-amz-version-id": "v1"})
COMPLETE = xml("CompleteMultipartUploadResult", "<ETag>e</ETag>")
MODE, DATE = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
HOLD = "x-amz-object-lock-legal-hold"


def stands(mode: str = "GOVERNANCE", until: str = "2033-03-04T10:30:00Z") -> Reply:
    """Return what HEAD tells of a version with this lock."""
    return Reply(headers={MODE: mode, DATE: until, "x-amz-version-id": "v1"})


NONE = Reply(headers={"x-amz-version-id": "v1"})
HELD = Reply(headers={HOLD: "ON"})
FREE = Reply(headers={HOLD: "OFF"})


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Event, dict[str, Any]]]:
    """Return what is logged as errors."""
    said: list[tuple[Event, dict[str, Any]]] = []
    monkeypatch.setattr(locking.log, "error", lambda event, **fields: said.append((event, fields)))
    return said


async def put(s3: ScriptedS3, lock: Lock | None = LOCK, *, legal_hold: bool = False, **can: Any) -> Written:
    """Write one object."""
    store = s3.store(capabilities=replace(LOCKING, **can))
    return await store.put("v1/a", BODY, sha256=HASH, content_type="audio/wav", lock=lock, legal_hold=legal_hold)


async def hold(s3: ScriptedS3, *, on: bool = True, **can: Any) -> None:
    """Set or lift the legal hold of a version."""
    await s3.store(capabilities=replace(LOCKING, **can)).set_legal_hold("v1/a", "v7", on=on)


async def test_the_lock_goes_out_with_the_bytes() -> None:
    """Mode and date are headers of the very PUT, signed and with a checksum; what was written is read back once."""
    async with ScriptedS3(WRITTEN, stands()) as s3:
        assert await put(s3) == Written("v1/a", 4, "v1", LOCK)
        assert s3.said == ["PUT /v1/a", "HEAD /v1/a?versionId=v1"]
        headers = s3.seen[0].headers
        assert (headers[MODE], headers[DATE]) == ("GOVERNANCE", "2033-03-04T10:30:00Z")
        assert headers["x-amz-checksum-sha256"] == base64.b64encode(bytes.fromhex(HASH)).decode()
        assert {MODE, DATE} <= set(headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";"))


async def test_without_a_lock_nothing_is_sent_and_nothing_read_back() -> None:
    """One request, without a word of locks."""
    async with ScriptedS3(WRITTEN) as s3:
        assert await put(s3, None) == Written("v1/a", 4, "v1")
        assert s3.said == ["PUT /v1/a"]
        assert MODE not in s3.seen[0].headers


@pytest.mark.parametrize(
    "answer",
    [
        NONE,
        stands(until="2033-03-04T10:29:59Z"),
        stands(until="in seven years"),
        stands(mode="FIRM"),
        Reply(headers={MODE: "GOVERNANCE"}),
    ],
)
async def test_a_lock_that_was_dropped_is_repaired(answer: Reply) -> None:
    """Missing, too short or unreadable: it is asked for again, on the version written, and read back again."""
    async with ScriptedS3(WRITTEN, answer, Reply(), stands()) as s3:
        assert (await put(s3)).lock == LOCK
        assert s3.said[2:] == ["PUT /v1/a?retention&versionId=v1", "HEAD /v1/a?versionId=v1"]
        repair = s3.seen[2]
        assert b"<Mode>GOVERNANCE</Mode><RetainUntilDate>2033-03-04T10:30:00Z</RetainUntilDate>" in repair.body
        digest = hashlib.sha256(repair.body).digest()
        assert repair.headers["x-amz-checksum-sha256"] == base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (NONE, "the store has no lock"),
        (stands(until="2030-01-01T00:00:00Z"), "has governance until 2030-01-01T00:00:00Z"),
    ],
)
async def test_a_version_without_its_lock_is_an_incident(
    second: Reply, words: str, logged: list[tuple[Event, dict[str, Any]]]
) -> None:
    """Where the repair does not hold either, the write is no success, and the log says so with key and version."""
    async with ScriptedS3(WRITTEN, NONE, Reply(), second) as s3:
        with pytest.raises(LockMissing, match=words):
            await put(s3)
    ((event, fields),) = logged
    assert event is Event.LOCK_MISSING
    assert (fields["key"], fields["version"]) == ("v1/a", "v1")


async def test_a_repair_that_is_refused_names_the_right() -> None:
    """Without the right nothing is archived, and the sentence says which one is missing."""
    async with ScriptedS3(WRITTEN, NONE, error(403, "AccessDenied")) as s3:
        with pytest.raises(StoreRefused, match="Grant s3:PutObjectRetention"):
            await put(s3)


@pytest.mark.parametrize(
    "told", [f"2033-03-04T{time}" for time in ("10:30:00.000Z", "10:30:00.000000000Z", "11:30:00+01:00", "10:30")]
)
async def test_dates_are_read_as_stores_write_them(told: str) -> None:
    """With fractions of any length, in another zone, without one."""
    async with ScriptedS3(stands(mode="COMPLIANCE", until=told)) as s3:
        found = (await s3.store(capabilities=LOCKING).protection("v1/a", None)).lock
        assert found == Lock(LockMode.COMPLIANCE, UNTIL)
        assert s3.said == ["HEAD /v1/a"]


async def test_what_stands_is_never_weakened() -> None:
    """A compliance lock of an earlier date is extended as one, though governance was asked for."""
    earlier = stands("COMPLIANCE", "2030-01-01T00:00:00Z")
    async with ScriptedS3(earlier, Reply(), stands("COMPLIANCE")) as s3:
        found = await s3.store(capabilities=LOCKING).extend_lock("v1/a", "v7", LOCK)
        assert found == Lock(LockMode.COMPLIANCE, UNTIL)
        assert b"<Mode>COMPLIANCE</Mode><RetainUntilDate>2033-03-04T10:30:00Z<" in s3.seen[1].body
        assert s3.said[1] == "PUT /v1/a?retention&versionId=v7"


async def test_a_write_that_came_out_weaker_is_an_incident(logged: list[tuple[Event, dict[str, Any]]]) -> None:
    """Governance where compliance was asked for: the mode cannot be changed, so nothing is, and it is no success."""
    async with ScriptedS3(WRITTEN, stands()) as s3:
        with pytest.raises(LockMissing, match=r"compliance until .* the store has governance"):
            await put(s3, Lock(LockMode.COMPLIANCE, UNTIL))
        assert len(s3.said) == 2
    assert [event for event, _ in logged] == [Event.LOCK_MISSING]


async def test_what_suffices_is_left_alone() -> None:
    """No request is made to change a lock that is as long and as strong."""
    async with ScriptedS3(stands("COMPLIANCE", "2040-01-01T00:00:00Z")) as s3:
        found = await s3.store(capabilities=LOCKING).extend_lock("v1/a", None, LOCK)
        assert found == Lock(LockMode.COMPLIANCE, datetime(2040, 1, 1, tzinfo=UTC))
        assert s3.said == ["HEAD /v1/a"]


async def test_without_a_version_the_current_object_is_meant() -> None:
    """A store that tells no version is asked and repaired by key."""
    async with ScriptedS3(Reply(headers={"ETag": "e"}), Reply(), Reply(), stands()) as s3:
        assert (await put(s3, object_lock=None)).lock == LOCK
        assert s3.said == ["PUT /v1/a", "HEAD /v1/a", "PUT /v1/a?retention", "HEAD /v1/a"]


async def test_a_bucket_without_object_lock_is_sent_nothing() -> None:
    """The sentence says how a bucket is made that has it."""
    async with ScriptedS3(WRITTEN) as s3:
        with pytest.raises(NoObjectLock, match="--object-lock-enabled-for-bucket"):
            await put(s3, object_lock=False)
        with pytest.raises(NoObjectLock):
            await s3.store(capabilities=EVERYTHING).upload("v1/a", content_type="audio/wav", lock=LOCK)
        assert s3.said == []


async def test_a_store_that_takes_no_checksum_gets_md5_with_a_lock() -> None:
    """S3 takes nothing under a lock without a checksum: bytes, parts and repairs carry MD5 then, and only then."""
    md5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    async with ScriptedS3(WRITTEN, NONE, Reply(), stands()) as s3:
        await put(s3, checksum_headers=False)
        assert s3.seen[0].headers["Content-MD5"] == md5
        assert s3.seen[2].headers["Content-MD5"] == base64.b64encode(hashlib.md5(s3.seen[2].body).digest()).decode()
        assert "x-amz-checksum-sha256" not in s3.seen[0].headers
    async with ScriptedS3(WRITTEN) as s3:
        await put(s3, None, checksum_headers=False)
        assert "Content-MD5" not in s3.seen[0].headers


async def test_a_large_object_is_asked_to_be_locked_from_the_start() -> None:
    """The headers go with the beginning of the upload; the version that comes of it is read back and repaired."""
    script = [begun(), WRITTEN, COMPLETE, stands(), NONE, Reply(), stands()]
    async with ScriptedS3(*script) as s3:
        store = s3.store(capabilities=LOCKING)
        async with await store.upload("v1/a", content_type="audio/wav", lock=LOCK) as upload:
            await upload.part(BODY, HASH)
            assert await upload.complete() == Written("v1/a", 4, "v1", LOCK)
        assert (s3.seen[0].headers[MODE], s3.seen[0].headers[DATE]) == ("GOVERNANCE", "2033-03-04T10:30:00Z")
        assert MODE not in s3.seen[1].headers
        assert s3.said[3:] == [
            "HEAD /v1/a",
            "HEAD /v1/a?versionId=v1",
            "PUT /v1/a?retention&versionId=v1",
            "HEAD /v1/a?versionId=v1",
        ]


async def test_a_version_that_met_a_rival_is_locked_too() -> None:
    """Before a second version is looked for, ours carries its lock: what is adopted may be either."""
    listing = version_page(version_row("v1/a", "v1"), version_row("v1/a", "v2"))
    async with ScriptedS3(Reply(404), WRITTEN, NONE, Reply(), stands(), listing) as s3:
        with pytest.raises(AlreadyExists):
            await put(s3, create_only=False)
        assert s3.said[3] == "PUT /v1/a?retention&versionId=v1"


async def test_a_hold_goes_out_with_the_bytes() -> None:
    """In the very PUT, beside the lock or alone, with a checksum; one look back sees both."""
    both = Reply(headers={**stands().headers, HOLD: "ON"})
    for lock, answer in ((LOCK, both), (None, HELD)):
        async with ScriptedS3(WRITTEN, answer) as s3:
            assert (await put(s3, lock, legal_hold=True)).lock == lock
            assert s3.said == ["PUT /v1/a", "HEAD /v1/a?versionId=v1"]
            assert s3.seen[0].headers[HOLD] == "ON"
            assert (MODE in s3.seen[0].headers) is (lock is not None)


async def test_a_hold_that_was_dropped_is_repaired() -> None:
    """On the version written, and read back again; a lock that was dropped too is given again in the same way."""
    both = Reply(headers={**stands().headers, HOLD: "ON"})
    async with ScriptedS3(WRITTEN, FREE, Reply(), HELD, Reply(), both) as s3:
        assert (await put(s3, legal_hold=True)).lock == LOCK
        assert s3.said[2:] == [
            "PUT /v1/a?legal-hold&versionId=v1",
            "HEAD /v1/a?versionId=v1",
            "PUT /v1/a?retention&versionId=v1",
            "HEAD /v1/a?versionId=v1",
        ]
        repair = s3.seen[2]
        assert b"<Status>ON</Status></LegalHold>" in repair.body
        digest = hashlib.sha256(repair.body).digest()
        assert repair.headers["x-amz-checksum-sha256"] == base64.b64encode(digest).decode()


async def test_a_large_object_is_held_from_the_start() -> None:
    """The hold goes with the beginning of the upload, every part carries a checksum, the version is read back."""
    async with ScriptedS3(begun(), WRITTEN, COMPLETE, stands(), NONE, Reply(), HELD) as s3:
        store = s3.store(capabilities=replace(LOCKING, checksum_headers=False))
        async with await store.upload("v1/a", content_type="audio/wav", legal_hold=True) as upload:
            await upload.part(BODY, HASH)
            assert await upload.complete() == Written("v1/a", 4, "v1")
        assert s3.seen[0].headers[HOLD] == "ON"
        assert "Content-MD5" in s3.seen[1].headers
        assert s3.said[4:] == [
            "HEAD /v1/a?versionId=v1",
            "PUT /v1/a?legal-hold&versionId=v1",
            "HEAD /v1/a?versionId=v1",
        ]


@pytest.mark.parametrize(("on", "status"), [(True, "ON"), (False, "OFF")])
async def test_a_hold_is_set_and_lifted_and_seen_to_be(on: bool, status: str) -> None:
    """One request changes it on exactly that version, the next one looks; a store need not tell of none."""
    for answer in [HELD] if on else [FREE, NONE]:
        async with ScriptedS3(Reply(), answer) as s3:
            await hold(s3, on=on)
            assert s3.said == ["PUT /v1/a?legal-hold&versionId=v7", "HEAD /v1/a?versionId=v7"]
            assert f"<Status>{status}</Status>".encode() in s3.seen[0].body


@pytest.mark.parametrize(("on", "answer"), [(True, FREE), (True, NONE), (False, HELD)])
async def test_a_hold_that_does_not_stick_is_an_incident(
    on: bool, answer: Reply, logged: list[tuple[Event, dict[str, Any]]]
) -> None:
    """The error names the right without which S3 shows no hold, and the log has key and version."""
    async with ScriptedS3(Reply(), answer) as s3:
        with pytest.raises(LockMissing, match="Grant s3:GetObjectLegalHold"):
            await hold(s3, on=on)
    ((event, fields),) = logged
    assert event is Event.LOCK_MISSING
    assert (fields["key"], fields["version"]) == ("v1/a", "v7")


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (error(403, "AccessDenied"), StoreRefused, r"Grant s3:PutObjectLegalHold"),
        (error(404, "NoSuchKey"), ObjectMissing, "no such object"),
        (error(405, "MethodNotAllowed"), ObjectMissing, "no such object"),
        (error(404, "NoSuchBucket"), StoreRefused, "no such bucket"),
    ],
)
async def test_a_hold_that_is_refused_says_why(reply: Reply, kind: type[Exception], words: str) -> None:
    """A missing right, a version that is gone, a delete marker, a bucket that is not there."""
    async with ScriptedS3(reply) as s3:
        with pytest.raises(kind, match=words):
            await hold(s3)


async def test_nothing_is_held_or_locked_later_in_a_bucket_without_object_lock() -> None:
    """The sentence that says how to make one is all that comes of it, and nothing is changed."""
    async with ScriptedS3(NONE) as s3:
        with pytest.raises(NoObjectLock, match="no Object Lock"):
            await hold(s3, object_lock=False)
        with pytest.raises(NoObjectLock):
            await put(s3, None, legal_hold=True, object_lock=False)
        with pytest.raises(NoObjectLock):
            await s3.store(capabilities=EVERYTHING).extend_lock("v1/a", None, LOCK)
        assert s3.said == ["HEAD /v1/a"]


async def test_what_protects_a_version_is_asked_in_one_request() -> None:
    """Lock and hold together, of the very version; a delete marker is not there."""
    both = Reply(headers={**stands().headers, HOLD: "on"})
    async with ScriptedS3(both, FREE, Reply(405, headers={"x-amz-delete-marker": "true"})) as s3:
        store = s3.store(capabilities=LOCKING)
        assert await store.protection("v1/a", "v7") == Protection(LOCK, legal_hold=True)
        assert await store.protection("v1/a", None) == Protection(None, legal_hold=False)
        with pytest.raises(ObjectMissing):
            await store.protection("v1/a", "m1")
        assert s3.said == ["HEAD /v1/a?versionId=v7", "HEAD /v1/a", "HEAD /v1/a?versionId=m1"]
