"""What the vendor contract promises of media. Listings are `vendor_listing`, refusals `vendor_refusals`."""

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest

from storage.sidecar import GapReason
from tests.contract.vendor_site import (
    LOGIN_PAGE,
    Site,
    VendorSite,
)
from tests.support.simulator import Simulator
from worker.errors import (
    GiveUp,
    MediaNotFound,
    Retry,
    SessionExpired,
    SourceError,
    Truncated,
)
from worker.model import Recording


class MediaContract(VendorSite):
    """Bytes arrive as they are, or an error says what to do next; slots and connections are given back."""

    async def test_media_arrives_byte_for_byte(self, site: Site, phones: Simulator) -> None:
        """Every recording's bytes are the phone system's, whose length is told, and the slots are given back."""
        for recording in await site.recordings():
            call = phones.call(recording.id)
            assert call is not None
            described = await site.connector.describe(recording)
            stream = await site.connector.open_media(described)
            assert stream.declared_length == len(call.media)
            assert (await stream.peek()) == call.media[:512]
            assert b"".join([chunk async for chunk in stream.chunks()]) == call.media
            await stream.aclose()
            await stream.aclose()
            assert site.free

    async def test_closing_a_stream_early_frees_the_slot(self, site: Site, one: Recording) -> None:
        """A stream that nobody reads holds a slot until it is closed, and not longer."""
        stream = await site.connector.open_media(one)
        assert not site.free
        await stream.aclose()
        assert site.free

    async def test_a_cancelled_read_closes_the_connection(self, site: Site, one: Recording, phones: Simulator) -> None:
        """When a reader is cancelled, the phone system sees the connection end and the slot is free."""
        phones.fault("stall", after=1000)
        stream = await site.connector.open_media(one)

        reading = asyncio.Event()

        async def read() -> None:
            try:
                async for _ in stream.chunks():
                    reading.set()
            finally:
                await stream.aclose()

        reader = asyncio.create_task(read())
        await reading.wait()
        await asyncio.sleep(0)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        assert site.free
        async with asyncio.timeout(10):
            while phones.at_once:  # noqa: ASYNC110 - the simulator lives on another thread and loop
                await asyncio.sleep(0.01)

    async def test_the_cap_on_connections_holds(self, phones: Simulator, open_site: Any) -> None:
        """Twenty downloads at once never make more than `max_connections` requests at the same time."""
        site = open_site(phones, max_connections=2)
        recordings = await site.recordings()
        await asyncio.gather(*(site.fetch(r) for r in recordings * 3))
        assert phones.most_at_once <= 2
        assert site.permits.most <= 2

    @pytest.mark.parametrize("kind", ["truncate", "cut_chunked", "cut_gzip"])
    async def test_a_body_cut_short_is_truncated(
        self, site: Site, one: Recording, phones: Simulator, kind: str
    ) -> None:
        """Fewer bytes than announced, a missing last chunk and a cut gzip body are noticed."""
        phones.fault(kind)
        with pytest.raises(Truncated):
            await site.media(one)
        assert site.free

    async def test_a_compressed_body_arrives_as_it_was(self, site: Site, one: Recording, phones: Simulator) -> None:
        """A server that compresses though nobody asked changes no byte of the recording."""
        phones.fault("gzip")
        call = phones.call(one.id)
        assert call is not None
        assert await site.media(one) == call.media

    async def test_a_body_that_stalls_is_tried_again_later(
        self, phones: Simulator, open_site: Any, one: Recording
    ) -> None:
        """A body that stops coming ends as something to retry, and the slot is free."""
        site = open_site(phones, timeouts=aiohttp.ClientTimeout(total=None, sock_read=0.5))
        phones.fault("stall", after=1000)
        with pytest.raises(Retry):
            await site.media(one)
        assert site.free

    @pytest.mark.parametrize(
        ("status", "error"), [(404, MediaNotFound), (403, GiveUp), (500, Retry), (503, Retry), (504, Retry)]
    )
    async def test_what_a_status_on_media_means(
        self, site: Site, one: Recording, phones: Simulator, status: int, error: type[SourceError]
    ) -> None:
        """404 is missing, 403 gives up this recording alone, 5xx is tried again."""
        phones.fault("status", status=status)
        with pytest.raises(error) as caught:
            await site.media(one)
        if isinstance(caught.value, GiveUp):
            assert caught.value.reason is GapReason.FORBIDDEN
        assert site.free

    async def test_a_reset_on_media_is_tried_again_later(self, site: Site, one: Recording, phones: Simulator) -> None:
        """A connection that is cut before an answer is something to retry."""
        phones.fault("reset")
        with pytest.raises(Retry):
            await site.media(one)
        assert site.free

    @pytest.mark.parametrize(
        "body", [LOGIN_PAGE, b'\xef\xbb\xbf {"error": "not found"}', b'<?xml version="1.0"?><Error code="1"/>']
    )
    async def test_a_document_with_status_200_is_no_audio(
        self, site: Site, one: Recording, phones: Simulator, body: bytes
    ) -> None:
        """A login page, a JSON or XML error in place of audio is raised as an error, never handed on as a recording."""
        phones.fault("answer", body=body)
        with pytest.raises(SourceError) as caught:
            await site.media(one)
        assert not isinstance(caught.value, SessionExpired), "a connector renews its session itself"
        assert site.free
        assert phones.count("login") <= 3
