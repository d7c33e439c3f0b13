"""What every write has in common: its headers, the check of what the store says it received, and create-only.

Create-only is the store's own where it heeds `If-None-Match`. Where it does not, callvault looks before it writes
and counts versions afterwards: two writers at the same moment then both learn of each other. That they do not meet
is the concern of `worker.claim`.
"""

import base64
import hashlib
from collections.abc import Mapping

from storage.errors import AlreadyExists, IntegrityError
from storage.s3.answers import Answer
from storage.s3.listing import versions_of
from storage.s3.refusals import Operation
from storage.s3.transport import Request, Transport
from storage.store import Body, Capabilities

CREATE_ONLY = {"If-None-Match": "*"}


def in_base64(sha256: str) -> str:
    """Return a hex SHA-256 as S3's checksum headers want it."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def checksum_headers(sha256: str) -> dict[str, str]:
    """Return the headers that have the store check the body. AWS needs the value only, moto the algorithm too."""
    return {"x-amz-checksum-sha256": in_base64(sha256), "x-amz-sdk-checksum-algorithm": "SHA256"}


def proof_headers(body: Body, sha256: str, can: Capabilities, *, locked: bool) -> dict[str, str]:
    """Return the headers that have the store check a body: SHA-256 where it takes that.

    Else MD5 for what is locked, since S3 takes nothing under a lock without one of the two.
    """
    if can.checksum_headers:
        return checksum_headers(sha256)
    if not locked:
        return {}
    return {"Content-MD5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}


def description_headers(content_type: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that describe an object."""
    return {"Content-Type": content_type, **{f"x-amz-meta-{name}": value for name, value in metadata.items()}}


def confirm(answer: Answer, sha256: str, key: str) -> None:
    """Compare the checksum the store reports, where it reports one. IntegrityError where it differs."""
    told = answer.headers.get("x-amz-checksum-sha256")
    if told is not None and told != in_base64(sha256):
        raise IntegrityError(
            f"the store says that it received {key} with SHA-256 {told[:60]!r} (base64), sent was {in_base64(sha256)}",
            key,
        )


async def exists(transport: Transport, key: str) -> bool:
    """Whether the key has a current object."""
    return (await transport.call(Request("HEAD", Operation.HEAD, key), expected={404})).ok


async def refuse_existing(transport: Transport, key: str) -> None:
    """Before a write the store would not refuse: AlreadyExists where the key is taken."""
    if await exists(transport, key):
        raise AlreadyExists(f"{key} is already there", key)


async def refuse_rival(transport: Transport, key: str, page_size: int) -> None:
    """After a write the store did not guard: look for a second version.

    AlreadyExists where all versions hold the same bytes (the caller compares and adopts), IntegrityError where they
    differ. Nothing is found in a bucket without versions, where the later of two writers replaces the earlier.
    """
    written = [v for v in await versions_of(transport, key, page_size) if not v.marker]
    if len(written) < 2:
        return
    if len({(v.bytes, v.etag) for v in written}) == 1:
        raise AlreadyExists(f"{key} was written by another worker at the same time, with the same bytes", key)
    raise IntegrityError(
        f"{key} has {len(written)} versions with different bytes: the store ignores If-None-Match and two writers"
        " met, or somebody deleted the object before. All versions are kept; compare them",
        key,
    )
