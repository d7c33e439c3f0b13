"""Listings that a faulty store spoils, and those whose pages moto does not make."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from storage.errors import StoreRefused, StoreUnavailable
from storage.store import ArchiveStore, Version
from tests.support.scripted_s3 import EVERYTHING, Reply, ScriptedS3, version_page, version_row, xml


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
    async with ScriptedS3(
        version_page(version_row("a", "2"), version_row("a", "3", marker=True, latest=True), more=("a", "2")),
        version_page(version_row("a", "1"), version_row("a.json", "9"), more=("a.json", "9")),
    ) as s3:
        assert await s3.store().count_versions("a") == 2
        assert s3.said[1].endswith("&versions&prefix=a&max-keys=1000&key-marker=a&version-id-marker=2")
        assert len(s3.seen) == 2


async def versions(store: ArchiveStore) -> list[tuple[str, str | None]]:
    """List all versions."""
    return [(found.key, found.version_id) async for found in store.versions("v1/")]


async def test_versions_and_markers_are_one_list() -> None:
    """Whether a store lists delete markers among the versions or apart: by key, the newest of each first."""
    noon, later = "2026-03-05T12:00:00Z", "2026-03-05T12:00:01.500Z"
    apart = [
        version_row("v1/a", "3", latest=True, modified=noon),
        version_row("v1/a", "2", modified=noon),
        version_row("v1/b", "1", modified=later, size=7, etag="e1"),
        version_row("v1/a", "m1", marker=True, modified=later),
        version_row("v1/b", "m2", marker=True, latest=True, modified=noon),
    ]
    in_order = [apart[0], apart[3], apart[1], apart[4], apart[2]]
    for rows in (apart, in_order):
        async with ScriptedS3(version_page(*rows)) as s3:
            found = [row async for row in s3.store().versions("v1/")]
            assert [(row.key, row.version_id, row.latest, row.marker) for row in found] == [
                ("v1/a", "3", True, False),
                ("v1/a", "m1", False, True),
                ("v1/a", "2", False, False),
                ("v1/b", "m2", True, True),
                ("v1/b", "1", False, False),
            ]
            assert found[3].bytes == 0
            assert found[4] == Version(
                "v1/b", "1", 7, datetime(2026, 3, 5, 12, 0, 1, 500_000, tzinfo=UTC), latest=False, etag="e1"
            )
            assert s3.said == ["GET /?encoding-type=url&versions&prefix=v1%2F&max-keys=1000"]


async def test_versions_of_one_key_go_on_over_pages() -> None:
    """The markers of a page are asked to be gone on from; a longer key follows."""
    async with ScriptedS3(
        version_page(version_row("v1/a", "3", latest=True), version_row("v1/a", "2"), more=("v1/a", "2")),
        version_page(version_row("v1/a", "1"), version_row("v1/a.json", "9", latest=True)),
    ) as s3:
        assert await versions(s3.store(page_size=2)) == [
            ("v1/a", "3"),
            ("v1/a", "2"),
            ("v1/a", "1"),
            ("v1/a.json", "9"),
        ]
        assert s3.said[1].endswith("&max-keys=2&key-marker=v1%2Fa&version-id-marker=2")


@pytest.mark.parametrize(
    ("second", "error", "words"),
    [
        (version_page(version_row("v1/a", "1")), StoreRefused, "v1/a out of order"),
        (version_page(version_row("v1/c", "1"), more=("v1/b", "2")), StoreUnavailable, "ListObjectVersions repeats"),
    ],
)
async def test_versions_listed_wrongly_stop_the_listing(second: Reply, error: type[Exception], words: str) -> None:
    """Keys that go back, or a listing that goes round in circles, would leave versions unseen."""
    async with ScriptedS3(version_page(version_row("v1/b", "2"), more=("v1/b", "2")), second) as s3:
        with pytest.raises(error, match=words):
            await versions(s3.store())


async def test_only_a_bucket_that_keeps_no_versions_has_none() -> None:
    """What S3 calls `null` is the object itself there; in a bucket that keeps versions it is one of several."""
    rows = version_row("v1/a", "null", latest=True)
    older = version_row("v1/b", "v9", latest=True) + version_row("v1/b", "null")
    async with ScriptedS3(version_page(rows, older)) as s3:
        assert await versions(s3.store()) == [("v1/a", None), ("v1/b", "v9"), ("v1/b", "null")]
        keeping = s3.store(capabilities=replace(EVERYTHING, versioned=True))
        assert await versions(keeping) == [("v1/a", "null"), ("v1/b", "v9"), ("v1/b", "null")]


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
        assert "encoding-type" not in s3.said[0]


async def test_repeated_markers_stop_the_listing() -> None:
    """The older listings end the same way when they go round in circles."""
    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker>"
    async with ScriptedS3(uploads(more=more)) as s3:
        with pytest.raises(StoreUnavailable, match="ListMultipartUploads repeats"):
            await s3.store().abort_stale_uploads("", timedelta(days=1), s3.clock.now())
