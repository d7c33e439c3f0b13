"""What the S3 servers of the tests do otherwise than AWS, seen by boto3 and written down as expectations.

callvault guards against each of these, and a test on a server that lacks a gap proves nothing about the guard. So a
gap that closes, or a new one, fails here first. Measured on moto 5.2 and Ceph RGW 16.2; AWS refuses every one of
the requests called wrong, and does the rest.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.s3 import eyes, moto, new_bucket

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
LATER = SOON + timedelta(days=2)
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)

Trial = Callable[[Any, str], bool]
"""Does something in a fresh bucket: whether the server does as AWS does."""


def refused(call: Callable[..., object], *statuses: int, **arguments: Any) -> bool:
    """Whether a request is refused, with one of these statuses; any other failure is an error of the test."""
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in statuses:
            return True
        raise
    return False


def put(s3: Any, bucket: str, **more: Any) -> str:
    """Write an object `a`; return its version."""
    written = s3.put_object(Bucket=bucket, Key="a", Body=b"RIFF", ChecksumAlgorithm="SHA256", **more)
    return str(written.get("VersionId", ""))


def lock(mode: str, until: datetime) -> dict[str, Any]:
    """Return the arguments that lock an object."""
    return {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until}


def large(s3: Any, bucket: str, **more: Any) -> dict[str, Any]:
    """Write an object `a` in parts; return what HEAD tells of it."""
    name = {"Bucket": bucket, "Key": "a"}
    begun = s3.create_multipart_upload(**name, **more)["UploadId"]
    part = s3.upload_part(**name, UploadId=begun, PartNumber=1, Body=b"RIFF")
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(**name, UploadId=begun, MultipartUpload=parts)
    told: dict[str, Any] = s3.head_object(**name)
    return told


def by_default(s3: Any, bucket: str) -> None:
    """Have the bucket lock what is written without a word about it."""
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    s3.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )


def wrong_md5(s3: Any, bucket: str) -> bool:
    """A Content-MD5 of other bytes is refused."""
    other = "1B2M2Y8AsgTpgAmY7PhCfg=="  # of no bytes at all
    return refused(s3.put_object, 400, Bucket=bucket, Key="a", Body=b"RIFF", ContentMD5=other)


def wrong_sha256(s3: Any, bucket: str) -> bool:
    """A SHA-256 of other bytes is refused."""
    other = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    return refused(
        s3.put_object, 400, Bucket=bucket, Key="a", Body=b"RIFF", ChecksumSHA256=other, ChecksumAlgorithm="SHA256"
    )


def second_create(s3: Any, bucket: str) -> bool:
    """A create-only write of a key that is taken is refused."""
    put(s3, bucket)
    return refused(s3.put_object, 412, Bucket=bucket, Key="a", Body=b"other", IfNoneMatch="*")


def create_over_marker(s3: Any, bucket: str) -> bool:
    """A key whose current version is a delete marker counts as free."""
    put(s3, bucket)
    s3.delete_object(Bucket=bucket, Key="a")
    return not refused(s3.put_object, 412, Bucket=bucket, Key="a", Body=b"other", IfNoneMatch="*")


def locked_at_put(s3: Any, bucket: str) -> bool:
    """Mode, date and hold that came with the bytes are in force."""
    put(s3, bucket, **lock("COMPLIANCE", SOON), ObjectLockLegalHoldStatus="ON")
    told = s3.head_object(Bucket=bucket, Key="a")
    return (
        told.get("ObjectLockMode") == "COMPLIANCE"
        and told.get("ObjectLockRetainUntilDate") == SOON
        and told.get("ObjectLockLegalHoldStatus") == "ON"
    )


def locked_in_parts(s3: Any, bucket: str) -> bool:
    """A lock asked for when an upload begins is on the finished object."""
    return "ObjectLockMode" in large(s3, bucket, **lock("GOVERNANCE", SOON), ChecksumAlgorithm="SHA256")


def held_in_parts(s3: Any, bucket: str) -> bool:
    """So is a hold."""
    return "ObjectLockLegalHoldStatus" in large(s3, bucket, ObjectLockLegalHoldStatus="ON", ChecksumAlgorithm="SHA256")


def default_at_put(s3: Any, bucket: str) -> bool:
    """What is written without a word gets the bucket's own retention."""
    by_default(s3, bucket)
    put(s3, bucket)
    return "ObjectLockMode" in s3.head_object(Bucket=bucket, Key="a")


def default_in_parts(s3: Any, bucket: str) -> bool:
    """So does what is uploaded in parts."""
    by_default(s3, bucket)
    return "ObjectLockMode" in large(s3, bucket, ChecksumAlgorithm="SHA256")


def default_on_full_bucket(s3: Any, bucket: str) -> bool:
    """A bucket that holds objects can be given a retention."""
    put(s3, bucket)
    try:
        by_default(s3, bucket)
    except ClientError:
        return False
    return True


def lock_afterwards(s3: Any, bucket: str) -> bool:
    """An object that is there can be locked."""
    version = put(s3, bucket)
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": SOON}
    s3.put_object_retention(Bucket=bucket, Key="a", VersionId=version, Retention=retention)
    return s3.head_object(Bucket=bucket, Key="a").get("ObjectLockRetainUntilDate") == SOON


def ask_for_retention(s3: Any, bucket: str) -> bool:
    """The retention of an object can be asked for."""
    put(s3, bucket, **lock("GOVERNANCE", SOON))
    return not refused(s3.get_object_retention, 500, Bucket=bucket, Key="a")


def shorten_compliance(s3: Any, bucket: str) -> bool:
    """A COMPLIANCE lock cannot be shortened."""
    version = put(s3, bucket, **lock("COMPLIANCE", LATER))
    retention = {"Mode": "COMPLIANCE", "RetainUntilDate": SOON}
    return refused(s3.put_object_retention, 403, Bucket=bucket, Key="a", VersionId=version, Retention=retention)


def shorten_governance(s3: Any, bucket: str) -> bool:
    """Nor a GOVERNANCE lock, without the right to bypass it."""
    version = put(s3, bucket, **lock("GOVERNANCE", LATER))
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": SOON}
    return refused(s3.put_object_retention, 403, Bucket=bucket, Key="a", VersionId=version, Retention=retention)


def strengthen_without_bypass(s3: Any, bucket: str) -> bool:
    """A GOVERNANCE lock does not become COMPLIANCE without the right to bypass it, even with a later date."""
    version = put(s3, bucket, **lock("GOVERNANCE", SOON))
    retention = {"Mode": "COMPLIANCE", "RetainUntilDate": LATER}
    return refused(s3.put_object_retention, 403, Bucket=bucket, Key="a", VersionId=version, Retention=retention)


def extend_without_bypass(s3: Any, bucket: str) -> bool:
    """It can be extended by anybody who may write."""
    version = put(s3, bucket, **lock("GOVERNANCE", SOON))
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": LATER}
    return not refused(s3.put_object_retention, 403, Bucket=bucket, Key="a", VersionId=version, Retention=retention)


def delete_locked(s3: Any, bucket: str) -> bool:
    """A version that is locked cannot be deleted."""
    version = put(s3, bucket, **lock("COMPLIANCE", SOON))
    return refused(s3.delete_object, 403, Bucket=bucket, Key="a", VersionId=version)


def delete_held(s3: Any, bucket: str) -> bool:
    """Nor one that is held."""
    version = put(s3, bucket, ObjectLockLegalHoldStatus="ON")
    return refused(s3.delete_object, 403, Bucket=bucket, Key="a", VersionId=version)


def delete_freed(s3: Any, bucket: str) -> bool:
    """When the hold is lifted it can be deleted."""
    version = put(s3, bucket, ObjectLockLegalHoldStatus="ON")
    s3.put_object_legal_hold(Bucket=bucket, Key="a", VersionId=version, LegalHold={"Status": "OFF"})
    return not refused(s3.delete_object, 403, Bucket=bucket, Key="a", VersionId=version)


def hold_of_nothing(s3: Any, bucket: str) -> bool:
    """A hold for a key that is not there is refused, not stumbled over."""
    with pytest.raises(ClientError) as caught:
        s3.put_object_legal_hold(Bucket=bucket, Key="missing", LegalHold={"Status": "ON"})
    return int(caught.value.response["ResponseMetadata"]["HTTPStatusCode"]) == 404


def name_a_marker(s3: Any, bucket: str) -> bool:
    """A delete marker that is asked for by its version says that it is one."""
    put(s3, bucket)
    marker = s3.delete_object(Bucket=bucket, Key="a")["VersionId"]
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key="a", VersionId=marker)
    return int(caught.value.response["ResponseMetadata"]["HTTPStatusCode"]) == 405


def delete_a_marker(s3: Any, bucket: str) -> bool:
    """When a delete marker is deleted, what it hid is there again."""
    put(s3, bucket)
    marker = s3.delete_object(Bucket=bucket, Key="a")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="a", VersionId=marker)
    return bool(s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"RIFF")


def folder_of_what_is_hidden(s3: Any, bucket: str) -> bool:
    """A folder in which all is hidden is not listed."""
    s3.put_object(Bucket=bucket, Key="day/a", Body=b"RIFF", ChecksumAlgorithm="SHA256")
    s3.delete_object(Bucket=bucket, Key="day/a")
    return "CommonPrefixes" not in s3.list_objects_v2(Bucket=bucket, Delimiter="/")


def encoded_uploads(s3: Any, bucket: str) -> bool:
    """A listing of uploads that encodes its keys says so."""
    s3.create_multipart_upload(Bucket=bucket, Key="source=hq")
    listed = s3.list_multipart_uploads(Bucket=bucket, EncodingType="url")
    return "EncodingType" in listed or listed["Uploads"][0]["Key"] == "source=hq"


def delete_null(s3: Any, bucket: str) -> bool:
    """In a bucket without versions `null` names the object."""
    put(s3, bucket)
    s3.delete_object(Bucket=bucket, Key="a", VersionId="null")
    return "Contents" not in s3.list_objects_v2(Bucket=bucket)


def delete_unknown(s3: Any, bucket: str) -> bool:
    """To delete a version that is gone is no mistake, and hides nothing."""
    version = put(s3, bucket)
    put(s3, bucket)
    for _ in range(2):
        s3.delete_object(Bucket=bucket, Key="a", VersionId=version)
    listed = s3.list_object_versions(Bucket=bucket)
    return len(listed["Versions"]) == 1 and "DeleteMarkers" not in listed


def delete_without_bypass(s3: Any, bucket: str) -> bool:
    """A GOVERNANCE lock is not bypassed by a header that says not to bypass it."""
    version = put(s3, bucket, **lock("GOVERNANCE", SOON))
    return refused(s3.delete_object, 403, Bucket=bucket, Key="a", VersionId=version, BypassGovernanceRetention=False)


def date_in_the_past(s3: Any, bucket: str) -> bool:
    """A lock that has ended already is refused."""
    return refused(
        s3.put_object, 400, Bucket=bucket, Key="a", Body=b"", ChecksumAlgorithm="SHA256",
        **lock("GOVERNANCE", LONG_AGO),
    )  # fmt: skip


def mode_without_date(s3: Any, bucket: str) -> bool:
    """So is a lock without an end."""
    return refused(
        s3.put_object, 400, Bucket=bucket, Key="a", Body=b"", ChecksumAlgorithm="SHA256", ObjectLockMode="GOVERNANCE"
    )


def stop_versions(s3: Any, bucket: str) -> bool:
    """A bucket with Object Lock keeps its versions."""
    return refused(s3.put_bucket_versioning, 409, Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


def lock_without_lock(s3: Any, bucket: str) -> bool:
    """A bucket without Object Lock refuses a lock."""
    return refused(
        s3.put_object, 400, Bucket=bucket, Key="a", Body=b"", ChecksumAlgorithm="SHA256", **lock("GOVERNANCE", SOON)
    )


def error_with_words(s3: Any, bucket: str) -> bool:
    """An error comes with a message."""
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="missing")
    return bool(caught.value.response["Error"].get("Message"))


PLAIN, VERSIONED, LOCKED = {}, {"versioned": True}, {"object_lock": True}

# what is tried, in which bucket, whether moto and RGW do as AWS does
TABLE: list[tuple[Trial, dict[str, bool], bool, bool]] = [
    (wrong_md5, PLAIN, False, True),
    (wrong_sha256, PLAIN, False, False),
    (second_create, PLAIN, True, True),
    (second_create, VERSIONED, True, False),
    (second_create, LOCKED, True, False),
    (create_over_marker, VERSIONED, True, True),
    (locked_at_put, LOCKED, True, True),
    (locked_in_parts, LOCKED, False, False),
    (held_in_parts, LOCKED, False, False),
    (default_at_put, LOCKED, True, True),
    (default_in_parts, LOCKED, False, True),
    (default_on_full_bucket, LOCKED, False, True),
    (lock_afterwards, LOCKED, True, True),
    (ask_for_retention, LOCKED, False, True),
    (shorten_compliance, LOCKED, False, True),
    (shorten_governance, LOCKED, False, True),
    (strengthen_without_bypass, LOCKED, False, True),
    (extend_without_bypass, LOCKED, True, True),
    (delete_locked, LOCKED, True, True),
    (delete_held, LOCKED, True, True),
    (delete_freed, LOCKED, True, True),
    (hold_of_nothing, LOCKED, False, True),
    (delete_without_bypass, LOCKED, False, True),
    (name_a_marker, VERSIONED, True, False),
    (delete_a_marker, VERSIONED, True, True),
    (folder_of_what_is_hidden, VERSIONED, False, True),
    (encoded_uploads, PLAIN, True, False),
    (delete_null, PLAIN, True, True),
    (delete_unknown, VERSIONED, True, True),
    (date_in_the_past, LOCKED, False, True),
    (mode_without_date, LOCKED, False, True),
    (stop_versions, LOCKED, False, True),
    (lock_without_lock, PLAIN, True, True),
    (error_with_words, PLAIN, True, False),
]


def named(row: tuple[Trial, dict[str, bool], bool, bool]) -> str:
    """Return a name for the report."""
    return "-".join([row[0].__name__, *row[1]])


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """One moto for all tests of this file."""
    with moto() as url:
        yield url


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_moto_does_as_written_here(moto_url: str, row: tuple[Trial, dict[str, bool], bool, bool]) -> None:
    """Our double differs from AWS exactly where the table says so."""
    trial, kind, expected, _ = row
    assert trial(*bucket_of(moto_url, kind)) is expected


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_rgw_does_as_written_here(rgw: str, row: tuple[Trial, dict[str, bool], bool, bool]) -> None:
    """Ceph RGW differs from AWS exactly where the table says so."""
    trial, kind, _, expected = row
    assert trial(*bucket_of(rgw, kind)) is expected


def bucket_of(url: str, kind: dict[str, bool]) -> tuple[Any, str]:
    """Return a client and a fresh bucket."""
    archive = new_bucket(url, **kind)
    return eyes(archive), archive.bucket
