"""One version destroyed in S3: by its name, past no lock, and told apart from what looks like it."""

from dataclasses import replace

import pytest

from storage.errors import StoreError, StoreRefused, StoreUnavailable, VersionLocked
from tests.support.scripted_s3 import CUT, EVERYTHING, Reply, ScriptedS3, error

VERSIONED = replace(EVERYTHING, versioned=True, object_lock=True)
NOON = "Thu, 05 Mar 2026 12:00:00 GMT"
DENIED = replace(error(403, "AccessDenied"), headers={"Date": NOON})
GONE = Reply(204)
FREE = Reply()
HELD = Reply(headers={"x-amz-object-lock-legal-hold": "ON"})


def locked(until: str) -> Reply:
    """Return what HEAD tells of a locked version."""
    return Reply(headers={"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": until})


async def destroy(s3: ScriptedS3, version_id: str | None = "v7") -> None:
    """Destroy a version in a bucket that keeps versions."""
    await s3.store(capabilities=VERSIONED).delete_version("v1/a", version_id)


@pytest.mark.parametrize(
    "answer",
    [
        GONE,
        Reply(204, headers={"x-amz-version-id": "v7"}),
        Reply(204, headers={"x-amz-version-id": "v7", "x-amz-delete-marker": "true"}),  # v7 was a marker itself
        error(404, "NoSuchVersion"),
        error(404, "NoSuchKey"),
    ],
)
async def test_one_request_destroys_one_version(answer: Reply) -> None:
    """The version is named, nothing asks to bypass a lock, and what is gone already is well."""
    async with ScriptedS3(answer) as s3:
        await destroy(s3)
        assert s3.said == ["DELETE /v1/a?versionId=v7"]
        assert not [name for name in s3.seen[0].headers if "bypass" in name.lower()]


async def test_a_bucket_without_versions_is_asked_for_version_null() -> None:
    """Should it keep versions after all, then no delete marker comes of it either."""
    async with ScriptedS3(GONE) as s3:
        await s3.store().delete_version("v1/a", None)
        assert s3.said == ["DELETE /v1/a?versionId=null"]


async def test_where_there_are_versions_one_must_be_named() -> None:
    """Otherwise nothing is sent."""
    async with ScriptedS3(GONE) as s3:
        with pytest.raises(ValueError, match="v1/a has versions"):
            await destroy(s3, None)
        assert s3.said == []


@pytest.mark.parametrize(
    ("refusal", "why", "words"),
    [
        (
            DENIED,
            locked("2026-03-05T12:00:01Z"),
            r"v1/a \(version v7\) stays, under governance until 2026-03-05T12:00:01Z:",
        ),
        (DENIED, HELD, "stays, under legal hold: .*AccessDenied"),
        (
            DENIED,
            Reply(headers={**locked("2027-01-01T00:00:00Z").headers, **HELD.headers}),
            "under governance until 2027-01-01T00:00:00Z and legal hold",
        ),
        (error(400, "InvalidRequest", "Object is WORM protected"), HELD, "under legal hold"),
        (error(409, "ObjectLocked"), HELD, "under legal hold"),
    ],
)
async def test_a_lock_that_refuses_is_named(refusal: Reply, why: Reply, words: str) -> None:
    """Whatever code a store refuses with, the version is asked what protects it."""
    async with ScriptedS3(refusal, why) as s3:
        with pytest.raises(VersionLocked, match=words) as told:
            await destroy(s3)
        assert told.value.key == "v1/a"
        assert s3.said == ["DELETE /v1/a?versionId=v7", "HEAD /v1/a?versionId=v7"]


@pytest.mark.parametrize(
    "why",
    [
        FREE,
        locked("2026-03-05T12:00:00Z"),  # over, by the store's own clock
        Reply(404),
        Reply(405),
        error(403, "AccessDenied"),
    ],
)
async def test_a_missing_right_is_no_lock(why: Reply) -> None:
    """Where nothing is seen to protect the version, the sentence says which right to grant."""
    async with ScriptedS3(DENIED, why) as s3:
        with pytest.raises(StoreRefused, match=r"DeleteObject of a version.*Grant s3:DeleteObjectVersion"):
            await destroy(s3)


async def test_a_store_without_a_date_is_believed_to_share_our_clock() -> None:
    """The time of the request decides then whether a lock has ended."""
    undated = replace(error(403, "AccessDenied"), headers={"Date": "some day"})
    for until, kind in (("2026-03-05T12:00:01Z", VersionLocked), ("2026-03-05T12:00:00Z", StoreRefused)):
        async with ScriptedS3(undated, locked(until)) as s3:
            with pytest.raises(kind):
                await destroy(s3)


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ((error(404, "NoSuchBucket"),), StoreRefused, "no such bucket"),
        ((Reply(404, b"<html>not found"), FREE), StoreRefused, "404 without an S3 error document"),
        ((DENIED, CUT), StoreUnavailable, "HeadObject of a version"),
        ((CUT,), StoreUnavailable, "DeleteObject of a version"),
    ],
)
async def test_what_is_not_known_to_be_gone_is_not_called_gone(
    script: tuple[Reply, ...], kind: type[StoreError], words: str
) -> None:
    """A wrong bucket, a proxy's page, no answer: none of them is a destruction."""
    async with ScriptedS3(*script) as s3:
        with pytest.raises(kind, match=words):
            await destroy(s3)


async def test_a_delete_marker_is_never_taken_for_destruction() -> None:
    """A store that makes one although a version was named has destroyed nothing, and that is said."""
    hidden = Reply(204, headers={"x-amz-version-id": "m1", "x-amz-delete-marker": "true"})
    async with ScriptedS3(hidden) as s3:
        with pytest.raises(StoreRefused, match="made version m1 instead, a delete marker: nothing is destroyed"):
            await destroy(s3)
