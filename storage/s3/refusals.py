"""What an answer of the store means: each error by what to do next, in one table, said for people.

Whether trouble is tried again before anybody hears of it is `storage.s3.transport`.
"""

from enum import StrEnum

from storage.errors import AlreadyExists, IntegrityError, ObjectMissing, StoreError, StoreRefused, StoreUnavailable
from storage.s3.address import Address
from storage.s3.answers import Answer

_LONGEST_QUOTE = 200


class Operation(StrEnum):
    """S3's own names of what is asked for."""

    PUT = "PutObject"
    HEAD = "HeadObject"
    HEAD_VERSION = "HeadObject of a version"
    GET = "GetObject"
    DELETE = "DeleteObject"
    LIST = "ListObjectsV2"
    VERSIONS = "ListObjectVersions"
    BEGIN = "CreateMultipartUpload"
    PART = "UploadPart"
    COMPLETE = "CompleteMultipartUpload"
    ABORT = "AbortMultipartUpload"
    UPLOADS = "ListMultipartUploads"
    LOCK = "GetObjectLockConfiguration"
    RETAIN = "PutObjectRetention"
    HOLD = "PutObjectLegalHold"
    DELETE_VERSION = "DeleteObject of a version"


_RIGHTS = {
    Operation.PUT: "s3:PutObject",
    Operation.HEAD: "s3:GetObject and s3:ListBucket (without the latter S3 answers 403 for what is not there)",
    Operation.HEAD_VERSION: (
        "s3:GetObjectVersion, s3:GetObjectRetention and s3:GetObjectLegalHold (without those S3 tells of no lock)"
    ),
    Operation.GET: "s3:GetObject and s3:ListBucket",
    Operation.DELETE: "s3:DeleteObject and s3:DeleteObjectVersion on the probe objects",
    Operation.LIST: "s3:ListBucket",
    Operation.VERSIONS: "s3:ListBucketVersions",
    Operation.BEGIN: "s3:PutObject",
    Operation.PART: "s3:PutObject",
    Operation.COMPLETE: "s3:PutObject",
    Operation.ABORT: "s3:AbortMultipartUpload",
    Operation.UPLOADS: "s3:ListBucketMultipartUploads",
    Operation.LOCK: "s3:GetBucketObjectLockConfiguration",
    Operation.RETAIN: "s3:PutObjectRetention",
    Operation.HOLD: "s3:PutObjectLegalHold",
    Operation.DELETE_VERSION: (
        "s3:DeleteObjectVersion (and s3:GetObjectRetention and s3:GetObjectLegalHold, to see whether a lock is why)"
    ),
}

_ADVICE = {
    "NoSuchBucket": "There is no such bucket: create it, or correct archive.bucket and archive.endpoint_url.",
    "InvalidAccessKeyId": "The store does not know the access key: correct archive.access_key_id.",
    "SignatureDoesNotMatch": "The secret access key is wrong, or a proxy on the way alters requests.",
    "ExpiredToken": "The session token has expired: renew the credentials.",
    "InvalidToken": "The session token is not valid: renew the credentials.",
    "TokenRefreshRequired": "The session token has expired: renew the credentials.",
    "EntityTooSmall": "A part other than the last was smaller than S3's least, 5 MiB: raise runtime.part_bytes.",
    "QuotaExceeded": "The bucket is full: raise its quota.",
}

_OF_AN_OBJECT = frozenset({Operation.GET, Operation.HEAD, Operation.HEAD_VERSION, Operation.RETAIN, Operation.HOLD})
_OF_A_VERSION = frozenset({Operation.HEAD_VERSION, Operation.RETAIN, Operation.HOLD})
_DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
_ELSEWHERE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})


def explain(answer: Answer, operation: Operation, key: str, address: Address) -> StoreError:
    """Return the error to raise for an answer that is not ok. `key` is empty for what concerns the bucket."""
    what = f"bucket {address.bucket} at {address.host}: {operation}{f' of {key}' if key else ''}"
    said = f"{what} was answered {_quoted(answer)}."
    code, status = answer.code, answer.status
    if code == "PreconditionFailed" or status == 412:
        return AlreadyExists(f"{what} met an object that is already there", key)
    if code == "NoSuchUpload":
        return StoreUnavailable(f"{said} Somebody ended the upload: begin it again.", key)
    if status == 409 and operation is Operation.COMPLETE:  # S3 wants a new upload id, the old one is spent
        return StoreUnavailable(f"{said} Another writer interfered: begin the upload again.", key)
    if code in _DAMAGED:
        return IntegrityError(f"{said} Other bytes arrived than were sent: look for a proxy or faulty memory.", key)
    if code == "RequestTimeTooSkewed":
        return StoreRefused(f"{said} {_skew(answer)}", key)
    if code in _ELSEWHERE or status in (301, 302, 307, 308):
        return StoreRefused(f"{said} {_region(answer, address)}", key)
    if code in _ADVICE:
        return StoreRefused(f"{said} {_ADVICE[code]}", key)
    if status in (401, 403):
        return StoreRefused(
            f"{said} Grant {_RIGHTS[operation]}, and look for a bucket policy that denies it; or the keys are wrong.",
            key,
        )
    if (status == 404 and operation in _OF_AN_OBJECT) or (status == 405 and operation in _OF_A_VERSION):
        # 405: the version is a delete marker, which some stores answer with 404
        return ObjectMissing(f"{what}: there is no such object", key)
    return StoreRefused(f"{said} The store does not take this request: run `callvault check`.", key)


def _quoted(answer: Answer) -> str:
    message = " ".join("".join(c if c.isprintable() else " " for c in answer.error.get("Message", "")).split())
    known = f"{answer.status} {answer.code}".rstrip()
    if not answer.error and answer.body:
        known += " without an S3 error document"
    return f"{known} ({message[:_LONGEST_QUOTE].rstrip('.')})" if message else known


def _skew(answer: Answer) -> str:
    if answer.date is None:
        return "The clocks of this machine and of the store differ too much: set this machine's clock (NTP)."
    seconds = (answer.sent_at - answer.date).total_seconds()
    side = "ahead of" if seconds > 0 else "behind"
    return f"This machine's clock is {abs(seconds) / 60:.1f} minutes {side} the store's: set it (NTP)."


def _region(answer: Answer, address: Address) -> str:
    right = answer.headers.get("x-amz-bucket-region") or answer.error.get("Region", "")
    if right and right != address.region:
        return f"The bucket is in {right[:40]}, the request was for {address.region}: set archive.region."
    return "The bucket answers elsewhere: correct archive.region and archive.endpoint_url."
