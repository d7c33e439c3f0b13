"""Listings that a faulty store spoils, and those whose pages moto does not make."""

from datetime import UTC, datetime, timedelta

import pytest

from storage.errors import StoreRefused, StoreUnavailable
from storage.store import ArchiveStore
from tests.support.scripted_s3 import Reply, ScriptedS3, xml


def listed(*keys: str, token: str = "") -> Reply:
    """Return a page of ListObjectsV2."""
    rows = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-03-05T12:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return xml("ListBucketResult", rows + more)


def uploads(*rows: tuple[str, str, str], more: str = "") -> Reply:
    """Return a page of ListMultipartUploads from (key, id, begun)."""
    found = "".join(
        f"<Upload><Key>{key}</Key><UploadId>{upload_id}</UploadId><Initiated>{begun}</Initiated></Upload>"
        for key, upload_id, begun in rows
    )
    return xml("ListMultipartUploadsResult", found + more)


async def everything(store: ArchiveStore) -> list[str]:
    """List it all."""
    return [found.key async for found in store.objects("v1/", start_after="v1/a")]


async def test_pages_are_followed_by_their_token() -> None:
    """The first page is asked for from the start, the second with the token; encoded keys are decoded."""
    second = xml(
        "ListBucketResult",
        "<EncodingType>url</EncodingType><Contents><Key>v1/c+%2Bd%7E</Key><Size>7</Size>"
        "<LastModified>2026-03-05T12:00:00</LastModified></Contents><IsTruncated>false</IsTruncated>",
    )
    async with ScriptedS3(listed("v1/b", token="t/1="), second) as s3:
        found = [row async for row in s3.store(page_size=1).objects("v1/", start_after="v1/a")]
        assert [(row.key, row.bytes, row.modified) for row in found] == [
            ("v1/b", 1, datetime(2026, 3, 5, 12, tzinfo=UTC)),
            ("v1/c +d~", 7, datetime(2026, 3, 5, 12, tzinfo=UTC)),
        ]
        first = "GET /?list-type=2&encoding-type=url&max-keys=1&prefix=v1%2F&start-after=v1%2Fa"
        assert s3.said == [first, f"{first}&continuation-token=t%2F1%3D"]


async def test_a_repeated_token_stops_the_listing() -> None:
    """A store that goes round in circles is given up instead of listed for ever."""
    async with ScriptedS3(listed("v1/b", token="t"), listed("v1/c", token="t")) as s3:
        with pytest.raises(StoreUnavailable, match="ListObjectsV2 repeats a page"):
            await everything(s3.store())
        assert len(s3.seen) == 2


@pytest.mark.parametrize("second", ["v1/b", "v1/a"])
async def test_keys_out_of_order_stop_the_listing(second: str) -> None:
    """A key twice or too late would make what was overlooked look settled."""
    async with ScriptedS3(listed("v1/b", second)) as s3:
        with pytest.raises(StoreRefused, match="out of order"):
            await everything(s3.store())


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(body=b"<html><body>Welcome<br></body>"), "not XML"),
        (Reply(body=b"<html/>"), "<html> where ListBucketResult was expected"),
        (Reply(body=b'<!DOCTYPE x [<!ENTITY a "b">]><ListBucketResult/>'), "not XML"),
        (xml("ListBucketResult", "<Contents/>"), "lacks Key"),
        (xml("ListBucketResult", "<Contents><Key>v1/b</Key></Contents>"), "lacks Size"),
        (xml("ListBucketResult", "<Contents><Key>v1/b</Key><Size>-1</Size></Contents>"), "unreadable Size"),
        (
            xml("ListBucketResult", "<Contents><Key>v1/b</Key><Size>1</Size><LastModified>x</LastModified></Contents>"),
            "unreadable LastModified",
        ),
        (xml("ListBucketResult", "<IsTruncated>true</IsTruncated>"), "lacks NextContinuationToken"),
    ],
)
async def test_an_unreadable_page_is_trouble(reply: Reply, words: str) -> None:
    """A proxy's page or a mangled listing is said, never taken for an empty bucket."""
    async with ScriptedS3(reply) as s3:
        with pytest.raises(StoreUnavailable, match=words):
            await everything(s3.store())


async def test_versions_are_counted_over_pages() -> None:
    """Versions of longer keys and delete markers are left out, and nobody asks beyond the key."""
    rows = (
        "<DeleteMarker><Key>a</Key><VersionId>3</VersionId></DeleteMarker>"
        "<Version><Key>a</Key><VersionId>{}</VersionId><Size>1</Size><ETag>e</ETag></Version>"
    )
    more = (
        "<IsTruncated>true</IsTruncated><NextKeyMarker>{}</NextKeyMarker><NextVersionIdMarker>{}</NextVersionIdMarker>"
    )
    other = "<Version><Key>a.json</Key><VersionId>9</VersionId><Size>1</Size><ETag>e</ETag></Version>"
    async with ScriptedS3(
        xml("ListVersionsResult", rows.format(2) + more.format("a", 2)),
        xml("ListVersionsResult", rows.format(1) + other + more.format("a.json", 9)),
    ) as s3:
        assert await s3.store().count_versions("a") == 2
        assert s3.said[1].endswith("&versions&prefix=a&max-keys=1000&key-marker=a&version-id-marker=2")
        assert len(s3.seen) == 2


async def test_unfinished_uploads_are_found_over_pages() -> None:
    """Only those begun before the limit are aborted; one that is over meanwhile is not counted."""
    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>v1/a</NextKeyMarker>"
    old, new = "2026-03-04T11:59:59Z", "2026-03-04T12:00:01.000Z"
    async with ScriptedS3(
        uploads(("v1/a", "u1", old), ("v1/a", "u2", new), more=more),
        uploads(("v1/b", "u3", old)),
        Reply(204),
        Reply(404, b"<Error><Code>NoSuchUpload</Code></Error>"),
    ) as s3:
        assert await s3.store().abort_stale_uploads("v1/", timedelta(days=1), s3.clock.now()) == 1
        assert s3.said[1].endswith("uploads&prefix=v1%2F&max-uploads=1000&key-marker=v1%2Fa")
        assert s3.said[2:] == ["DELETE /v1/a?uploadId=u1", "DELETE /v1/b?uploadId=u3"]


async def test_repeated_markers_stop_the_listing() -> None:
    """The older listings end the same way when they go round in circles."""
    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker>"
    async with ScriptedS3(uploads(more=more)) as s3:
        with pytest.raises(StoreUnavailable, match="ListMultipartUploads repeats"):
            await s3.store().abort_stale_uploads("", timedelta(days=1), s3.clock.now())
