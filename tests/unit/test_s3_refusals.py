"""What answers mean: each error by what to do next, in words that name bucket, operation and remedy."""

from datetime import UTC, datetime

import pytest

from storage.errors import AlreadyExists, IntegrityError, ObjectMissing, StoreError, StoreRefused, StoreUnavailable
from storage.s3.address import address_of
from storage.s3.answers import Answer, error_in
from storage.s3.refusals import Operation, explain
from tests.contract.store_contract import put
from tests.support.clock import FakeClock
from tests.support.s3 import archive_at
from tests.support.scripted_s3 import Reply, ScriptedS3, error

REFUSALS: list[tuple[Reply, type[StoreError], str]] = [
    (error(403, "AccessDenied"), StoreRefused, r"PutObject of v1/a.*403 AccessDenied.*Grant s3:PutObject"),
    (error(403, "AccessDenied", None), StoreRefused, r"403 AccessDenied\. Grant"),
    (Reply(403, b"<html><body>Forbidden<br>"), StoreRefused, r"403 without an S3 error document\. Grant"),
    (Reply(403), StoreRefused, r"403\. Grant"),
    (Reply(401), StoreRefused, r"401\. Grant"),
    (error(403, "InvalidAccessKeyId"), StoreRefused, r"archive\.access_key_id"),
    (error(403, "SignatureDoesNotMatch"), StoreRefused, r"secret access key is wrong"),
    (error(400, "ExpiredToken"), StoreRefused, r"renew the credentials"),
    (error(404, "NoSuchBucket", None), StoreRefused, r"bucket calls at 127.*no such bucket.*archive\.bucket"),
    (error(404, "NoSuchKey"), StoreRefused, r"callvault check"),
    (Reply(404, b"404 page not found"), StoreRefused, r"404 without an S3 error document"),
    (Reply(301, headers={"x-amz-bucket-region": "eu-west-1"}), StoreRefused, r"in eu-west-1.*for us-east-1.*region"),
    (error(400, "AuthorizationHeaderMalformed", Region="eu-west-1"), StoreRefused, r"in eu-west-1"),
    (error(301, "PermanentRedirect"), StoreRefused, r"answers elsewhere"),
    (Reply(307, headers={"Location": "http://127.0.0.1:1/"}), StoreRefused, r"answers elsewhere"),
    (error(400, "BadDigest"), IntegrityError, r"Other bytes arrived"),
    (error(400, "XAmzContentSHA256Mismatch", None), IntegrityError, r"Other bytes arrived"),
    (error(412, "PreconditionFailed"), AlreadyExists, r"already there"),
    (Reply(412), AlreadyExists, r"already there"),
    (error(400, "InvalidRequest", "x" * 500), StoreRefused, r"\(x{200}\)"),
    (error(501, "NotImplemented"), StoreRefused, r"callvault check"),
    (Reply(507), StoreRefused, r"callvault check"),
    (Reply(400, b"<Error></Error>"), StoreRefused, r"400 Error"),
    (Reply(400, b"<Other><Error><Code>BadDigest</Code></Error></Other>"), IntegrityError, r"BadDigest"),
    (Reply(400, b'<!DOCTYPE x [<!ENTITY a "b">]><Error><Code>&a;</Code></Error>'), StoreRefused, r"400 without"),
]


@pytest.mark.parametrize(("reply", "kind", "words"), REFUSALS)
async def test_a_refusal_is_explained_at_once(reply: Reply, kind: type[StoreError], words: str) -> None:
    """The right error, with key and remedy, after a single try; whatever the store's body looks like."""
    async with ScriptedS3(reply) as s3:
        with pytest.raises(kind, match=words) as told:
            await put(s3.store(), "v1/a")
        assert type(told.value) is kind
        assert told.value.key == "v1/a"
        assert len(s3.seen) == 1
        assert "test-secret" not in str(told.value)


async def test_a_store_that_repeats_our_key_is_not_quoted() -> None:
    """What the store repeats of our credentials, and control characters, do not get into the message."""
    async with ScriptedS3(error(403, "AccessDenied", "test-key\n\x85may not")) as s3:
        with pytest.raises(StoreRefused, match=r"\(\*\*\* may not\)"):
            await put(s3.store(), "a")


@pytest.mark.parametrize(
    ("date", "words"),
    [
        ("Thu, 05 Mar 2026 11:40:00 GMT", "20.0 minutes ahead of the store's"),
        ("Thu, 05 Mar 2026 13:30:00 GMT", "90.0 minutes behind the store's"),
        ("Thu, 05 Mar 2026 12:20:00 -0000", "20.0 minutes behind the store's"),
        ("some day", "differ too much"),
    ],
)
async def test_clocks_that_differ_are_told_by_how_much(date: str, words: str) -> None:
    """The difference is that of the signed time and the store's Date; both clocks are at most minutes apart."""
    async with ScriptedS3(
        Reply(403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>", headers={"Date": date})
    ) as s3:
        assert s3.clock.now() == datetime(2026, 3, 5, 12, tzinfo=UTC)
        with pytest.raises(StoreRefused, match=words):
            await put(s3.store(), "a")


async def test_head_has_no_body_to_explain() -> None:
    """404 is an answer, 403 names the two rights that HEAD needs."""
    async with ScriptedS3(Reply(404), Reply(403)) as s3:
        assert await s3.store().head("a") is None
        with pytest.raises(StoreRefused, match=r"HeadObject of a.*s3:GetObject and s3:ListBucket"):
            await s3.store().head("a")


async def test_reading_what_is_missing_is_told_from_a_missing_bucket() -> None:
    """Only the absent object is ObjectMissing."""
    async with ScriptedS3(error(404, "NoSuchKey", None), error(404, "NoSuchBucket")) as s3:
        with pytest.raises(ObjectMissing, match="no such object") as told:
            await s3.store().get("a", max_bytes=1)
        assert told.value.key == "a"
        with pytest.raises(StoreRefused, match="no such bucket"):
            await s3.store().get("a", max_bytes=1)


async def test_a_bucket_wide_operation_names_no_key() -> None:
    """A refused listing speaks of the bucket alone."""
    async with ScriptedS3(error(403, "AccessDenied")) as s3:
        with pytest.raises(StoreRefused, match=r"ListObjectsV2 was answered.*Grant s3:ListBucket,") as told:
            await s3.store().folders("v1/")
        assert told.value.key == ""


def test_every_operation_names_its_rights() -> None:
    """No operation is refused without a word on the permission it needs."""
    answer = Answer(403, {}, FakeClock().now())
    for operation in Operation:
        assert "Grant s3:" in str(explain(answer, operation, "", address_of(archive_at("http://h", "calls"))))


def test_an_upload_that_is_gone_is_to_be_begun_again() -> None:
    """NoSuchUpload and a 409 on completion are trouble for this upload only."""
    address = address_of(archive_at("http://h", "calls"))
    gone = Answer(404, {}, FakeClock().now(), error={"Code": "NoSuchUpload"})
    assert isinstance(explain(gone, Operation.PART, "a", address), StoreUnavailable)


@pytest.mark.parametrize("body", [b"", b"plain", b"<a>", b"<?xml version='1.0' encoding='klingon'?><Error/>", b"\xff"])
def test_bodies_that_are_no_error_document(body: bytes) -> None:
    """Whatever a proxy sends, it is read as no S3 error and nothing breaks."""
    assert error_in(body) == {}
