"""What is in the bucket: objects, folders, versions and unfinished uploads, page by page.

A store that repeats a page or lists out of order would have callvault overlook recordings or never end, so both
are refused here.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime

from storage.errors import StoreRefused, StoreUnavailable
from storage.s3.answers import Page
from storage.s3.refusals import Operation
from storage.s3.transport import Request, Transport
from storage.store import ObjectInfo, Version


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A multipart upload that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    begun_at: datetime


async def objects(transport: Transport, prefix: str, start_after: str, page_size: int) -> AsyncIterator[ObjectInfo]:
    """Iterate over the objects below `prefix` after `start_after`, in the order of their keys' bytes."""
    last = start_after.encode()
    async for page in _objects_pages(transport, {"prefix": prefix}, start_after, page_size):
        for row in page.rows("Contents"):
            key = page.key(row, "Key")
            if key.encode() <= last:
                raise _out_of_order(transport, key)
            last = key.encode()
            yield ObjectInfo(key, page.number(row, "Size"), page.time(row, "LastModified"))


async def folders(transport: Transport, prefix: str, start_after: str, page_size: int) -> list[str]:
    """Return the distinct next path segments below `prefix`, each as a full prefix."""
    found: list[str] = []
    async for page in _objects_pages(transport, {"prefix": prefix, "delimiter": "/"}, start_after, page_size):
        found += [page.key(row, "Prefix") for row in page.rows("CommonPrefixes")]
    # `start-after` inside a folder still lists that folder, once more on some stores for each page
    return [folder for folder in sorted(set(found), key=str.encode) if folder > start_after]


async def versions(transport: Transport, prefix: str, page_size: int) -> AsyncGenerator[Version, None]:
    """Iterate over all versions below `prefix`, delete markers included, in the order of their keys' bytes.

    Of one key the newest comes first, as S3 lists them. Some stores list delete markers apart, page by page.
    """
    pages = _marked_pages(
        transport,
        Operation.VERSIONS,
        {"encoding-type": "url", "versions": "", "prefix": prefix, "max-keys": str(page_size)},
        "ListVersionsResult",
        "version-id-marker",
        "NextVersionIdMarker",
    )
    last = b""
    async for page in pages:
        for found in sorted(_versions_on(page), key=_newest_first):
            if found.key.encode() < last:
                raise _out_of_order(transport, found.key)
            last = found.key.encode()
            yield found


def _versions_on(page: Page) -> Iterator[Version]:
    for row in page.rows("Version", "DeleteMarker"):
        marker = row.tag == "DeleteMarker"
        yield Version(
            page.key(row, "Key"),
            page.text(row, "VersionId"),
            0 if marker else page.number(row, "Size"),
            page.time(row, "LastModified"),
            page.text(row, "IsLatest").lower() == "true",
            marker,
            "" if marker else page.text(row, "ETag"),
        )


def _newest_first(found: Version) -> tuple[bytes, bool, float]:
    return found.key.encode(), not found.latest, -found.modified.timestamp()  # what is equal stays as it was listed


async def versions_of(transport: Transport, key: str, page_size: int) -> list[Version]:
    """Return all versions of exactly `key`, delete markers included."""
    found = []
    rows = versions(transport, key, page_size)
    async for row in rows:
        if row.key != key:
            await rows.aclose()  # what follows are longer keys that begin alike
            break
        found.append(row)
    return found


async def unfinished(transport: Transport, prefix: str, page_size: int) -> AsyncIterator[Unfinished]:
    """Iterate over the multipart uploads under way below `prefix`.

    Their keys are not asked to be encoded: RGW encodes them without saying so, and then none is found by its key.
    """
    async for page in _marked_pages(
        transport,
        Operation.UPLOADS,
        {"uploads": "", "prefix": prefix, "max-uploads": str(page_size)},
        "ListMultipartUploadsResult",
        "upload-id-marker",
        "NextUploadIdMarker",
    ):
        for row in page.rows("Upload"):
            yield Unfinished(page.key(row, "Key"), page.text(row, "UploadId"), page.time(row, "Initiated"))


async def _objects_pages(
    transport: Transport, query: dict[str, str], start_after: str, page_size: int
) -> AsyncIterator[Page]:
    """Iterate over the pages of ListObjectsV2."""
    query = {"list-type": "2", "encoding-type": "url", "max-keys": str(page_size), **query}
    if start_after:
        query["start-after"] = start_after
    seen: set[str] = set()
    while True:
        answer = await transport.call(Request("GET", Operation.LIST, query=query))
        page = Page.of(answer.body, "ListBucketResult")
        yield page
        if not page.more:
            return
        token = page.text(None, "NextContinuationToken")
        if token in seen:
            raise _repeated(transport, Operation.LIST)
        seen.add(token)
        query["continuation-token"] = token


async def _marked_pages(
    transport: Transport, operation: Operation, query: dict[str, str], root: str, second: str, next_second: str
) -> AsyncGenerator[Page, None]:
    """Iterate over the pages of the older listings, which go on from a key and a second marker."""
    query = dict(query)
    seen: set[tuple[str, str]] = set()
    while True:
        answer = await transport.call(Request("GET", operation, query=query))
        page = Page.of(answer.body, root)
        yield page
        if not page.more:
            return
        marks = (page.key(None, "NextKeyMarker"), page.root.findtext(next_second, ""))
        if marks in seen:
            raise _repeated(transport, operation)
        seen.add(marks)
        query["key-marker"] = marks[0]
        if marks[1]:
            query[second] = marks[1]


def _repeated(transport: Transport, operation: Operation) -> StoreUnavailable:
    return StoreUnavailable(
        f"bucket {transport.address.bucket} at {transport.address.host}: {operation} repeats a page without end;"
        " stopped, since what follows it cannot be seen"
    )


def _out_of_order(transport: Transport, key: str) -> StoreRefused:
    return StoreRefused(
        f"bucket {transport.address.bucket} at {transport.address.host} lists {key} out of order: callvault needs a"
        " store that lists keys in the order of their bytes, as S3 does (directory buckets do not)",
        key,
    )
