"""The Bandwidth Catapult connector: the contract of all connectors, and what only this API does."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from storage.sidecar import Direction, GapReason
from tests.contract.vendor_contract import WINDOW, Site, VendorContract, calls_of_the_day
from tests.support.catapult import SimulatedCatapult
from tests.support.clock import FakeClock
from tests.support.hostile import START, VENDORS, hostile
from tests.support.hostile import WINDOW as ROWS
from tests.support.other_origin import OtherOrigin
from tests.support.simulator import Call
from worker.errors import BadAnswer, GiveUp, MediaNotFound, NotYet, Retry, StopSource
from worker.model import Readiness, Recording, Unreadable
from worker.vendors.catapult import Catapult

PAYLOADS = Path(__file__).parents[1] / "payloads" / "catapult"


class TestCatapult(VendorContract):
    media_401_stops = False
    simulator = SimulatedCatapult
    vendor = Catapult
    states: ClassVar[Mapping[str, Readiness]] = {
        "recording": Readiness.NOT_YET,
        "saving": Readiness.NOT_YET,
        "error": Readiness.NEVER,
    }
    details = True

    @pytest.fixture
    def phones(self, clock: FakeClock) -> Iterator[SimulatedCatapult]:
        """The calls of the day without internal ones, of which this platform knows nothing."""
        calls = [replace(c, direction=c.direction.replace("internal", "outbound")) for c in calls_of_the_day()]
        phones = SimulatedCatapult(calls)
        phones.use_clock(clock.now)
        with phones:
            yield phones

    # paging

    @pytest.mark.parametrize("style", ["absolute", "relative", "terse", "none"])
    async def test_every_form_of_link_header_is_followed(
        self, site: Site, phones: SimulatedCatapult, monkeypatch: pytest.MonkeyPatch, style: str
    ) -> None:
        """Absolute and relative links, single quotes without a space, and no header at all lead through all pages."""
        monkeypatch.setattr(Catapult, "page_size", 2)
        phones.link_style = style
        assert {r.id for r in await site.recordings()} == {c.id for c in phones.finished()}
        assert [seen.query["page"] for seen in phones.requests] == ["0", "1", "2", "3"]

    async def test_pages_smaller_than_asked_for_are_followed_by_their_links(
        self, site: Site, phones: SimulatedCatapult
    ) -> None:
        """A server that gives fewer rows than asked for, with a link to more, is read to the end."""
        phones.largest_page = 3
        assert len(await site.recordings()) == 7
        assert phones.count("list") == 3

    async def test_a_next_link_elsewhere_stops_the_source(
        self, site: Site, phones: SimulatedCatapult, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Credentials do not follow a next link to another origin."""
        monkeypatch.setattr(Catapult, "page_size", 2)
        phones.link_style = "foreign"
        with pytest.raises(StopSource, match="leads away"):
            await site.recordings()
        assert phones.count("list") == 1

    async def test_a_next_link_without_a_page_number_ends_where_links_end(
        self, site: Site, phones: SimulatedCatapult, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where no link and no page number say how to go on, the listing is over."""
        monkeypatch.setattr(Catapult, "page_size", 1)
        phones.link_style = "none"
        link = f'</v1/users/{phones.user_id}/recordings>; rel="next"'
        phones.fault("answer", "list", body=b"[]", headers={"Link": link}, times=1)
        assert len(await site.recordings()) == 7
        assert phones.count("list") == 2

    async def test_rows_that_shift_between_pages_are_neither_lost_nor_doubled(
        self, site: Site, phones: SimulatedCatapult, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A recording that is inserted in front while pages are walked pushes no other out of the listing."""
        monkeypatch.setattr(Catapult, "page_size", 3)
        before = {c.id for c in phones.finished()}
        phones.insert_after_page = Call(40, WINDOW.start)
        found = [r.id for r in await site.recordings()]
        assert before <= set(found)
        assert len(found) == len(set(found))

    async def test_the_account_is_asked_for_a_thousand_at_a_time(self, site: Site, phones: SimulatedCatapult) -> None:
        """Pages are as large as documented, because each costs a second."""
        await site.recordings()
        assert phones.requests[0].query == {"page": "0", "size": "1000"}

    async def test_a_full_page_whose_links_end_is_the_last(
        self, site: Site, phones: SimulatedCatapult, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where there are links, they alone say whether there is more: no request is spent on finding out."""
        monkeypatch.setattr(Catapult, "page_size", 7)
        assert len(await site.recordings()) == 7
        assert phones.count("list") == 1

    # rows

    async def test_documented_rows_are_understood(self, site: Site, phones: SimulatedCatapult) -> None:
        """The vendor's sample gives its times, with and without milliseconds, states and verbatim record."""
        body = (PAYLOADS / "recordings.json").read_bytes()
        phones.fault("answer", "list", body=body)
        page = await site.connector.list_page(WINDOW, None)
        first, second, active, failed = page.recordings
        assert (page.next, page.unreadable) == (None, ())
        assert first.started_at.isoformat() == "2013-02-08T13:15:47.587000+00:00"
        assert first.call.duration_seconds == pytest.approx(84.594)
        assert first.call.call_id == "c-sample1"
        assert first.record == json.loads(body)[0]
        assert second.started_at.isoformat() == "2013-02-08T14:05:15+00:00"
        assert active.call.ended_at is None
        assert [r.readiness.value for r in page.recordings] == ["ready", "not_yet", "not_yet", "never"]
        assert [r.vendor_state for r in page.recordings] == ["complete", "saving", "recording", "error"]
        assert failed.media is None

    async def read(self, site: Site, phones: SimulatedCatapult, *rows: Any) -> list[Recording | Unreadable]:
        """Return what comes of these rows."""
        phones.fault("answer", "list", body=json.dumps(rows).encode(), times=1)
        page = await site.connector.list_page(WINDOW, None)
        return [*page.recordings, *page.unreadable]

    async def test_rows_without_a_name_are_reported(self, site: Site, phones: SimulatedCatapult) -> None:
        """Rows that are no objects, or have no id, are reported and kept."""
        first, second = await self.read(site, phones, 5, {"id": 7, "startTime": "2026-03-05T09:00:00Z"})
        assert isinstance(first, Unreadable)
        assert (first.id, first.record) == (None, {"value": 5})
        assert isinstance(second, Unreadable)
        assert (second.id, second.record["id"]) == (None, 7)

    @pytest.mark.parametrize("end", ["soon", "2026-03-05T08:59:00Z", 12])
    async def test_an_odd_end_is_left_out_with_a_note(self, site: Site, phones: SimulatedCatapult, end: Any) -> None:
        """An end that cannot be read or lies before the start costs the duration, not the recording."""
        row = {"id": "rec-a", "startTime": "2026-03-05T09:00:00Z", "endTime": end, "state": "complete"}
        (recording,) = await self.read(site, phones, row)
        assert isinstance(recording, Recording)
        assert (recording.call.ended_at, recording.call.duration_seconds) == (None, None)
        assert "endTime" in recording.notes[0]

    @pytest.mark.parametrize("state", [None, "transcoding"])
    async def test_an_undocumented_state_is_waited_for(
        self, site: Site, phones: SimulatedCatapult, state: str | None
    ) -> None:
        """What is not known to be complete is not archived yet."""
        (recording,) = await self.read(site, phones, {"id": "r", "startTime": "2026-03-05T09:00:00Z", "state": state})
        assert isinstance(recording, Recording)
        assert recording.readiness is Readiness.NOT_YET

    # the call resource

    async def test_the_call_tells_the_parties_and_is_kept(self, site: Site, phones: SimulatedCatapult) -> None:
        """Numbers and direction come from the call; the listed times, which decide the key, stay."""
        recording = (await site.recordings())[0]
        call = json.loads((PAYLOADS / "call.json").read_text())
        phones.fault("answer", "detail", body=json.dumps(call).encode())
        described = await site.connector.describe(recording)
        assert (described.call.from_, described.call.to) == ("+15550100", "+15550101")
        assert described.call.direction is Direction.OUTBOUND
        assert described.call.call_id == "c-sample1"
        assert described.started_at == recording.started_at
        assert described.record == {**recording.record, "call_details": call}

    async def test_a_call_that_tells_nothing_is_no_trouble(self, site: Site, phones: SimulatedCatapult) -> None:
        """Fields that are missing or of another type stay unknown."""
        recording = (await site.recordings())[0]
        phones.fault("answer", "detail", body=b'{"from": 5550100, "direction": "sideways"}')
        described = await site.connector.describe(recording)
        assert (described.call.from_, described.call.to) == (None, None)
        assert described.call.direction is Direction.UNKNOWN
        assert described.call.call_id == recording.call.call_id

    @pytest.mark.parametrize("body", [b"[]", b"<html>", b""])
    async def test_a_call_that_cannot_be_read_is_a_note(
        self, site: Site, phones: SimulatedCatapult, body: bytes
    ) -> None:
        """A broken call resource does not keep the recording out of the archive."""
        recording = (await site.recordings())[0]
        phones.fault("answer", "detail", body=body)
        assert "parties are unknown" in (await site.connector.describe(recording)).notes[0]

    async def test_a_call_elsewhere_is_a_note_and_not_asked_for(self, site: Site, phones: SimulatedCatapult) -> None:
        """Credentials do not follow a call link to another origin; its absence is noted."""
        with OtherOrigin() as other:
            call = phones.add(Call(41, WINDOW.start, extra={"call": f"{other.url}/v1/users/u/calls/c-1"}))
            recording = next(r for r in await site.recordings() if r.id == call.id)
            assert "leads away" in (await site.connector.describe(recording)).notes[0]
            assert other.requests == []

    async def test_a_busy_call_resource_is_tried_again_later(self, site: Site, phones: SimulatedCatapult) -> None:
        """A passing trouble with the call is not taken for its absence."""
        recording = (await site.recordings())[0]
        phones.fault("status", "detail", status=503)
        with pytest.raises(Retry):
            await site.connector.describe(recording)

    # media

    async def test_a_complete_recording_without_media_link_is_not_yet(
        self, site: Site, phones: SimulatedCatapult
    ) -> None:
        """Without a link there is nothing to fetch yet."""
        call = phones.add(Call(42, WINDOW.start, extra={"media": None}))
        recording = next(r for r in await site.recordings() if r.id == call.id)
        with pytest.raises(NotYet, match="no media link"):
            await site.media(recording)

    async def test_media_elsewhere_are_refused_before_anything_is_sent(
        self, site: Site, phones: SimulatedCatapult
    ) -> None:
        """A media link to another origin is a gap, and nothing arrives there."""
        with OtherOrigin() as other:
            call = phones.add(Call(43, WINDOW.start, extra={"media": f"{other.url}/v1/users/u/media/c-1.wav"}))
            recording = next(r for r in await site.recordings() if r.id == call.id)
            with pytest.raises(GiveUp) as caught:
                await site.media(recording)
            assert other.requests == []
        assert caught.value.reason is GapReason.FOREIGN_ORIGIN

    async def test_a_media_name_keeps_its_encoding(self, site: Site, phones: SimulatedCatapult) -> None:
        """Spaces, plus signs, percent signs and slashes in a media name arrive as the link has them."""
        call = phones.add(Call(44, WINDOW.start, extra={"media_name": "c 1+2%25-é.wav"}))
        recording = next(r for r in await site.recordings() if r.id == call.id)
        assert await site.media(recording) == call.media

    async def test_media_that_are_gone_are_missing(self, site: Site, phones: SimulatedCatapult) -> None:
        """The documented 404 is told as such."""
        recording = (await site.recordings())[0]
        phones.calls.clear()
        with pytest.raises(MediaNotFound, match="media-not-found"):
            await site.media(recording)

    # limits and credentials

    async def test_the_reset_time_in_milliseconds_is_kept(self, site: Site, phones: SimulatedCatapult) -> None:
        """Requests that come too soon wait until the named time, and all recordings arrive."""
        phones.interval = 1.0
        recordings = [await site.connector.describe(r) for r in await site.recordings()]
        assert len(recordings) == 7
        assert phones.refused >= 6
        assert all(r.call.from_ for r in recordings)

    async def test_the_documented_429_is_got_over(self, site: Site, phones: SimulatedCatapult) -> None:
        """Its body has no message, and its reset time may be long past."""
        body = (PAYLOADS / "too-many-requests.json").read_bytes()
        phones.fault("status", "list", status=429, body=body, headers={"X-RateLimit-Reset": "1479308598680"}, times=1)
        assert len(await site.recordings()) == 7

    async def test_the_documented_pace_is_never_refused(self, phones: SimulatedCatapult, open_site: Any) -> None:
        """One request a second, the default of this vendor, stays within the limit."""
        phones.interval = 1.0
        site = open_site(phones, requests_per_second=Catapult.info.default_requests_per_second)
        for recording in await site.recordings():
            await site.media(recording)
        assert phones.refused == 0

    async def test_a_wrong_secret_stops_the_source(
        self, phones: SimulatedCatapult, open_site: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Wrong credentials are tried twice at most, and told without showing them."""
        monkeypatch.setattr(
            SimulatedCatapult, "settings", lambda self: {"user_id": "u-sample", "token": "t-x", "secret": "wrong-one"}
        )
        with pytest.raises(StopSource, match="token") as caught:
            await open_site(phones).recordings()
        assert len(phones.requests) == 2
        assert "wrong-one" not in str(caught.value)

    async def test_a_listing_that_is_no_array_is_an_error(self, site: Site, phones: SimulatedCatapult) -> None:
        """An object in place of the array is not taken for an empty account."""
        phones.fault("answer", "list", body=b'{"recordings": []}')
        with pytest.raises(BadAnswer, match="expected a JSON array"):
            await site.recordings()


@pytest.mark.parametrize("number", ["9" * 5000, "%D9%A3", "-1", ""])
async def test_a_page_number_that_is_none_ends_the_count(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A next link may name any number: where Link headers end after it, there is nothing to count on from."""
    monkeypatch.setattr(Catapult, "page_size", 2)  # so that the page is full
    with hostile("catapult", [VENDORS["catapult"].good(f"r-{n}", START) for n in range(2)]) as source:
        async with source.services:
            page = await source.desk.vendor.list_page(ROWS, f"/v1/users/u/recordings?page={number}")
    assert [r.id for r in page.recordings] == ["r-0", "r-1"]
    assert page.next is None
