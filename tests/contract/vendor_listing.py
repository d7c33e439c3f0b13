"""What the vendor contract promises of listings. Media is `vendor_media`, refusals `vendor_refusals`."""

import json
from datetime import timedelta
from typing import Any

import pytest

from storage.sidecar import Direction
from tests.contract.vendor_site import DAY, WINDOW, Site, VendorSite
from tests.support.simulator import Call, Simulator
from worker.errors import (
    BadAnswer,
)
from worker.model import Readiness, Recording, Window


class ListingContract(VendorSite):
    """Everything finished is listed once, as it was, and nothing else is made of it."""

    async def test_everything_finished_in_the_window_is_listed(self, site: Site, phones: Simulator) -> None:
        """Each finished call comes once, with its own id, start, parties, direction and duration."""
        outside = Call(90, WINDOW.end + timedelta(minutes=5)), Call(91, WINDOW.start - timedelta(hours=3))
        for call in outside:
            phones.add(call)
        recordings = [await site.connector.describe(r) for r in await site.recordings()]
        truth = {c.id: c for c in phones.finished() if c not in outside}
        assert sorted(r.id for r in recordings) == sorted(truth)
        for recording in recordings:
            call, told = truth[recording.id], recording.call
            assert recording.readiness is Readiness.READY
            assert abs((recording.started_at - call.started_at).total_seconds()) < 1
            assert recording.started_at.utcoffset() == timedelta(0)
            assert (told.from_, told.to) == (call.from_, call.to)
            assert told.direction == (Direction(call.direction) if self.tells_direction else Direction.UNKNOWN)
            assert told.duration_seconds == pytest.approx(call.seconds, abs=1)
            assert told.ended_at is not None
            assert abs((told.ended_at - call.ended_at).total_seconds()) <= 1
            assert recording.notes == ()
            if self.tells_agent:
                assert str(call.agent) in str(told.agent)
            if self.tells_queue:
                assert str(call.queue) in str(told.queue)

    async def test_the_record_is_kept_verbatim_as_json(self, site: Site) -> None:
        """A recording survives JSON, and the vendor's own record is not empty."""
        for recording in await site.recordings():
            assert recording.record
            assert Recording.from_json(json.loads(json.dumps(recording.to_json()))) == recording

    async def test_pages_are_walked_to_the_end(
        self, phones: Simulator, open_site: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Small pages give the same recordings as one large page, each once, from more than one request."""
        if not self.pages:
            pytest.skip("this vendor answers in one piece")
        monkeypatch.setattr(self.vendor, "page_size", 3)
        found = [r.id for r in await open_site(phones).recordings()]
        assert sorted(found) == sorted(c.id for c in phones.finished())
        assert phones.count("list") >= 3

    async def test_a_full_last_page_ends_the_listing(
        self, phones: Simulator, open_site: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A number of recordings that fills its pages exactly is neither cut nor asked for without end."""
        if not self.pages:
            pytest.skip("this vendor answers in one piece")
        monkeypatch.setattr(self.vendor, "page_size", len(phones.calls))
        assert len(await open_site(phones).recordings()) == len(phones.calls)

    async def test_a_listing_that_repeats_itself_is_an_error(
        self, phones: Simulator, open_site: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A phone system that gives its first page for ever is found out after a few pages."""
        if not self.pages:
            pytest.skip("this vendor answers in one piece")
        monkeypatch.setattr(self.vendor, "page_size", 3)
        phones.stuck = True
        with pytest.raises(BadAnswer):
            await open_site(phones).recordings()
        assert phones.count("list") < 20

    async def test_an_empty_window_is_no_error(self, site: Site) -> None:
        """A window without calls gives no recordings and nothing unreadable."""
        empty = Window(DAY - timedelta(days=9), DAY - timedelta(days=9) + timedelta(hours=2))
        assert [(p.recordings, p.unreadable) for p in await site.pages(empty) if p.recordings or p.unreadable] == []

    async def test_a_row_without_optional_fields_is_listed(self, site: Site, phones: Simulator) -> None:
        """A call of which the phone system tells hardly anything is listed and can be had all the same."""
        call = phones.add(Call(50, WINDOW.start + timedelta(minutes=3), extra={"bare": True}))
        found = {r.id: r for page in await site.pages() for r in page.recordings}
        assert call.id in found
        assert await site.fetch(found[call.id]) == call.media

    async def test_states_that_are_not_final_are_told_apart(self, site: Site, phones: Simulator) -> None:
        """What is still being made is not yet, what failed is never; neither is listed as ready."""
        calls = {
            state: phones.add(Call(60 + at, WINDOW.start + timedelta(minutes=7 + at), state=state))
            for at, state in enumerate(("recording", "saving", "error"))
        }
        found = {r.id: r.readiness for r in await site.recordings()}
        for state, call in calls.items():
            assert found.get(call.id) is self.states.get(state), state

    async def test_hostile_ids_are_listed_and_fetched_intact(self, site: Site, phones: Simulator) -> None:
        """Slashes, dots, control characters, unicode and length in an id change neither it nor what is fetched."""
        calls = {
            identity: phones.add(Call(70 + at, WINDOW.start + timedelta(minutes=11 + at), id=identity))
            for at, identity in enumerate(self.hostile_ids)
        }
        found = {r.id: r for r in await site.recordings()}
        for identity, call in calls.items():
            assert identity in found
            assert await site.fetch(found[identity]) == call.media, identity[:40]

    @pytest.mark.parametrize("kind", ["no_start", "wrong_type"])
    async def test_a_malformed_row_is_reported_and_the_others_listed(
        self, site: Site, phones: Simulator, kind: str
    ) -> None:
        """A row that cannot be read is reported with its record and a sentence; it costs no other row."""
        good = {c.id for c in phones.finished()}
        phones.add(Call(80, WINDOW.start + timedelta(minutes=13), extra={"malformed": kind}))
        pages = await site.pages()
        assert {r.id for p in pages for r in p.recordings} == good
        (row,) = [u for p in pages for u in p.unreadable]
        assert row.detail
        json.dumps(row.record)

    async def test_a_missing_detail_is_a_note(self, site: Site, phones: Simulator) -> None:
        """Where the further call about a recording finds nothing, the recording is archived all the same."""
        if not self.details:
            pytest.skip("this vendor needs no further call")
        recording = (await site.recordings())[0]
        phones.fault("status", "detail", status=404)
        described = await site.connector.describe(recording)
        assert described.id == recording.id
        assert described.notes
