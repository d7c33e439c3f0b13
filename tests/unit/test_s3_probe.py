"""The probe against stores good and bad: what it concludes, what it removes, and when it is made."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from storage.errors import StoreRefused, StoreUnavailable
from storage.store import Capabilities
from tests.contract.store_contract import digest, put
from tests.support.scripted_s3 import (
    EVERYTHING,
    OK,
    Reply,
    ScriptedS3,
    Seen,
    begun,
    error,
    version_page,
    version_row,
    xml,
)

LOCKED = xml("ObjectLockConfiguration", "<ObjectLockEnabled>Enabled</ObjectLockEnabled>")


class Store:
    """A store whose manners are chosen: each attribute is its answer to one wrong request."""

    def __init__(self, **manners: Reply) -> None:
        written = Reply(headers={"ETag": '"e"', "x-amz-version-id": "v1"})
        self.manners = {
            "header": written,
            "conditional": error(412, "PreconditionFailed"),
            "checksum": error(400, "BadDigest"),
            "payload": error(400, "XAmzContentSHA256Mismatch"),
            "completion": error(412, "PreconditionFailed"),
            "lock": LOCKED,
            "versions": version_page(),
            "delete": Reply(204),
            "written": written,
            **manners,
        }

    def __call__(self, seen: Seen) -> Reply:
        return self.manners[self.kind(seen)] if self.kind(seen) != "begin" else begun()

    def kind(self, seen: Seen) -> str:
        query = parse_qs(urlsplit(seen.target).query, keep_blank_values=True)
        if seen.method == "GET":
            return "lock" if "object-lock" in query else "versions"
        if seen.method != "PUT":
            return {"DELETE": "delete", "POST": "begin" if "uploads" in query else "completion"}[seen.method]
        told = seen.headers.get("x-amz-checksum-sha256")
        if seen.headers["x-amz-content-sha256"] != digest(seen.body):
            return "payload"
        if told and told != base64.b64encode(hashlib.sha256(seen.body).digest()).decode():
            return "checksum"
        if seen.headers.get("If-None-Match"):
            return "conditional"
        return "header" if told and "partNumber" not in query else "written"


GOOD = replace(EVERYTHING, versioned=True, object_lock=True)
TAKEN = Reply(headers={"ETag": '"e"', "x-amz-version-id": "v2"})


@pytest.mark.parametrize(
    ("manners", "found"),
    [
        ({}, GOOD),
        ({"conditional": TAKEN}, replace(GOOD, create_only=False)),
        ({"conditional": error(501, "NotImplemented")}, replace(GOOD, create_only=False)),
        ({"completion": TAKEN}, replace(GOOD, create_only_multipart=False)),
        ({"completion": Reply(200, b"<Error><Code>PreconditionFailed</Code></Error>")}, GOOD),
        ({"completion": error(400, "InvalidRequest", None)}, replace(GOOD, create_only_multipart=False)),
        ({"checksum": TAKEN}, replace(GOOD, checksum=False)),
        ({"header": error(400, "InvalidRequest")}, replace(GOOD, checksum=False, checksum_headers=False)),
        ({"header": error(501, "NotImplemented")}, replace(GOOD, checksum=False, checksum_headers=False)),
        ({"payload": TAKEN}, replace(GOOD, payload_hash=False)),
        ({"payload": error(403, "SignatureDoesNotMatch")}, GOOD),
        ({"header": Reply(headers={"ETag": '"e"'})}, replace(GOOD, versioned=False)),
        ({"lock": error(404, "ObjectLockConfigurationNotFoundError")}, replace(GOOD, object_lock=False)),
        ({"lock": xml("ObjectLockConfiguration", "")}, replace(GOOD, object_lock=False)),
        ({"lock": error(403, "AccessDenied")}, replace(GOOD, object_lock=None)),
        ({"lock": error(501, "NotImplemented")}, replace(GOOD, object_lock=None)),
    ],
)
async def test_what_is_concluded(manners: dict[str, Reply], found: Capabilities) -> None:
    """Each ability is known by what the store does with one request that is wrong on purpose."""
    async with ScriptedS3(Store(**manners)) as s3:
        assert await s3.store().probe("v1/probe/") == found
        keys = {seen.said.split("?")[0].split(" ")[1] for seen in s3.seen} - {"/"}
        assert len(keys) == 1
        assert keys.pop().startswith("/v1/probe/")


async def test_all_versions_are_removed() -> None:
    """What the writes told and what a listing shows is deleted by version; the unfinished upload is aborted."""

    def listing(seen: Seen) -> Reply:
        key = parse_qs(urlsplit(seen.target).query)["prefix"][0]
        return version_page(version_row(key, "v9"), version_row(key, "null"))

    careless = Store(conditional=TAKEN)

    def answer(seen: Seen) -> Reply:
        return listing(seen) if careless.kind(seen) == "versions" else careless(seen)

    async with ScriptedS3(answer) as s3:
        await s3.store().probe("v1/probe/")
        deleted = {seen.said.partition("?")[2] for seen in s3.seen if seen.method == "DELETE"}
        assert deleted == {"versionId=v1", "versionId=v2", "versionId=v9", "", "uploadId=u1"}


async def test_without_versions_the_object_is_deleted_by_name() -> None:
    """An unversioned bucket is cleaned by a plain DELETE, also where its versions may not be listed."""
    plain = Reply(headers={"ETag": '"e"'})
    store = Store(header=plain, written=plain, versions=error(403, "AccessDenied"))
    async with ScriptedS3(store) as s3:
        await s3.store().probe("v1/probe/")
        deleted = [seen.said.partition("?")[2] for seen in s3.seen if seen.method == "DELETE"]
        assert deleted == ["uploadId=u1", ""]


async def test_what_may_not_be_deleted_stays() -> None:
    """No right to delete is no reason to think less of the store."""
    denied = error(403, "AccessDenied")

    def answer(seen: Seen) -> Reply:
        return denied if seen.method == "DELETE" and "versionId" in seen.target else Store()(seen)

    async with ScriptedS3(answer) as s3:
        assert await s3.store().probe("v1/probe/") == GOOD


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(error(403, "AccessDenied"), StoreRefused), (error(404, "NoSuchBucket"), StoreRefused), (Reply(500), None)],
)
async def test_a_bucket_that_cannot_be_written_is_said(reply: Reply, kind: type[Exception] | None) -> None:
    """The probe fails as an archive write would."""
    async with ScriptedS3(reply) as s3:
        with pytest.raises(kind or StoreUnavailable, match="PutObject of v1/probe/"):
            await s3.store().probe("v1/probe/")


async def test_a_store_that_refuses_with_and_without_checksum_is_said() -> None:
    """When the write fails for another reason, that reason is told."""
    async with ScriptedS3(error(400, "InvalidRequest", "bucket is read-only")) as s3:
        with pytest.raises(StoreRefused, match="read-only"):
            await s3.store().probe("v1/probe/")


def asked(s3: ScriptedS3) -> list[str]:
    """Return what was asked for, in order, without the names of the probe objects."""
    return [f"{seen.method} {urlsplit(seen.target).query}" for seen in s3.seen]


async def test_trying_to_write_makes_no_object() -> None:
    """A part is sent and taken back: not even a bucket that locks whatever is written has anything to keep."""
    async with ScriptedS3(Store()) as s3:
        await s3.store().try_write("v1/probe/")
        assert asked(s3) == ["POST uploads", "PUT partNumber=1&uploadId=u1", "DELETE uploadId=u1"]
        assert all(seen.said.split(" ")[1].startswith("/v1/probe/") for seen in s3.seen)


@pytest.mark.parametrize("status", [400, 501])
async def test_trying_to_write_does_without_a_checksum_where_it_must(status: int) -> None:
    """A store that knows no checksum headers can be written all the same, and is not called broken."""

    def answer(seen: Seen) -> Reply:
        checked = any(name.lower().startswith("x-amz-checksum") for name in seen.headers)
        return error(status, "NotImplemented") if checked else Store()(seen)

    async with ScriptedS3(answer) as s3:
        await s3.store().try_write("v1/probe/")
        assert asked(s3)[-1] == "DELETE uploadId=u1"


@pytest.mark.parametrize("refused", ["POST", "PUT", "DELETE"])
async def test_a_store_that_cannot_be_written_is_said_by_the_try_too(refused: str) -> None:
    """Each of the rights that a large upload needs is missed, by its name, and the upload is not left behind."""

    def answer(seen: Seen) -> Reply:
        return error(403, "AccessDenied") if seen.method == refused else Store()(seen)

    rights = {"POST": "CreateMultipartUpload", "PUT": "UploadPart", "DELETE": "AbortMultipartUpload"}
    async with ScriptedS3(answer) as s3:
        with pytest.raises(StoreRefused, match=f"{rights[refused]} of v1/probe/"):
            await s3.store().try_write("v1/probe/")
        assert sum(said.startswith("DELETE") for said in asked(s3)) == (0 if refused == "POST" else 2)


async def test_the_first_write_probes_once() -> None:
    """Many first writes at once share one probe below the archive's own prefix, then it is known."""
    async with ScriptedS3(Store(conditional=OK)) as s3:
        store = s3.store(capabilities=None)
        assert store.capabilities is None
        await asyncio.gather(*(put(store, f"v1/k{n}", create_only=False) for n in range(5)))
        assert store.capabilities == replace(GOOD, create_only=False)
        assert sum("object-lock" in said for said in s3.said) == 1
        assert await store.ensure_probed() is store.capabilities


async def test_reading_needs_no_probe() -> None:
    """Nothing is written for a head or a listing."""
    async with ScriptedS3(Reply(404)) as s3:
        await s3.store(capabilities=None).head("a")
        assert s3.said == ["HEAD /a"]


async def test_cancelled_the_probe_cleans_up() -> None:
    """Even a probe that is interrupted removes what it wrote."""
    good = Store()
    cancel: list[Callable[[], Any]] = []

    def answer(seen: Seen) -> Reply:
        if good.kind(seen) == "conditional":
            cancel[0]()
        return good(seen)

    async with ScriptedS3(answer) as s3:
        task = asyncio.create_task(s3.store().probe("v1/probe/"))
        cancel.append(task.cancel)
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError)
        assert s3.said[-1].endswith("?versionId=v1")
