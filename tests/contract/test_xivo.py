"""XiVO CC passes the vendor contract, and what is special to it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.sidecar import Direction
from tests.contract.vendor_contract import WINDOW, VendorContract, calls_of_the_day
from tests.support.simulator import Call
from tests.support.xivo import SimulatedXivo
from worker.errors import BadAnswer, MediaNotFound, StopSource
from worker.model import Window
from worker.vendors.xivo import Xivo

PAYLOADS = Path(__file__).parents[1] / "payloads" / "xivo"
SAMPLE = Window(datetime(2016, 3, 31, 14, tzinfo=UTC), datetime(2016, 3, 31, 15, tzinfo=UTC))
AUTUMN = datetime(2025, 10, 26, tzinfo=UTC)  # Paris reads 02:00 to 03:00 twice, from 00:00 and from 01:00 UTC


class TestXivo(VendorContract):
    simulator = SimulatedXivo
    vendor = Xivo
    tells_direction = False
    tells_agent = True
    tells_queue = True
    media_401_stops = False

    async def test_the_documented_sample_is_read(self, site: Any, phones: SimulatedXivo) -> None:
        """Every field of the vendor's page is understood: the epoch in the id is the start, attached data is kept."""
        phones.fault("answer", "list", body=(PAYLOADS / "search.json").read_bytes())
        first, second = await site.recordings(SAMPLE)
        assert first.started_at == datetime(2016, 3, 31, 14, 44, 25, tzinfo=UTC)
        assert (first.call.ended_at, first.call.duration_seconds) == (None, None)
        assert (first.call.from_, first.call.to) == ("5550100", "73556")
        assert (first.call.agent, first.call.queue) == ("Ada Example (1564)", "hotline (3556)")
        assert (first.call.call_id, first.call.direction) == ("1459435465.15089", Direction.UNKNOWN)
        assert first.vendor_state == "answered"
        assert first.record["attached_data"] == {"recording": "gw1-1459435465.15089", "color": "green"}
        assert first.notes == ()
        assert second.call.direction is Direction.OUTBOUND
        assert second.call.duration_seconds == 67
        assert second.call.ended_at == datetime(2016, 3, 31, 14, 54, 27, tzinfo=UTC)

    async def test_odd_rows_cost_nothing_but_themselves(self, site: Any, phones: SimulatedXivo) -> None:
        """Rows without a usable id or start are reported; odd optional fields become notes of a good recording."""
        phones.fault("answer", "list", body=(PAYLOADS / "odd_rows.json").read_bytes())
        (page,) = await site.pages(SAMPLE)
        assert [u.id for u in page.unreadable] == [None, None, None, "gw1-1459435465.1", "gw1-recording"]
        assert page.unreadable[0].record == {"row": "no object"}
        typed, vague = page.recordings
        assert (typed.call.from_, typed.call.queue, typed.call.duration_seconds) == (None, None, None)
        assert len(typed.notes) == 3
        assert vague.notes == ("the duration 'about a minute' could not be read",)

    @pytest.mark.parametrize("answer", [{"records": {}}, {"hasNext": False}, {"hasNext": "no", "records": []}, []])
    async def test_another_shape_is_no_listing(self, site: Any, phones: SimulatedXivo, answer: Any) -> None:
        """An answer without a list of records is an error, never taken for an empty listing."""
        phones.fault("answer", "list", body=json.dumps(answer).encode())
        with pytest.raises(BadAnswer):
            await site.recordings()

    @pytest.mark.parametrize("said", [{}, {"hasNext": None}])
    async def test_without_has_next_an_empty_page_ends_the_listing(
        self, site: Any, phones: SimulatedXivo, said: dict[str, None]
    ) -> None:
        """A server that does not say whether there is more is asked until a page is empty."""
        rows = [phones.row(call) for call in phones.calls]
        phones.fault("answer", "list", body=json.dumps({"records": rows, **said}).encode(), times=1)
        phones.fault("answer", "list", body=b'{"records": []}')
        assert len(await site.recordings()) == len(rows)
        assert [seen.query["page"] for seen in phones.requests] == ["1", "2"]

    async def test_the_window_is_asked_for_in_local_time_and_wider(self, site: Any, phones: SimulatedXivo) -> None:
        """A call whose local time is outside the plain window is still found; what is outside is not listed."""
        late = phones.add(Call(95, WINDOW.end - timedelta(seconds=1)))
        outside = phones.add(Call(96, WINDOW.end))
        found = {r.id for r in await site.recordings()}
        assert late.id in found
        assert outside.id not in found

    async def test_a_window_across_the_clock_change_is_not_empty(self, site: Any, phones: SimulatedXivo) -> None:
        """A window whose end reads earlier than its start on the phone system's clock still finds its calls."""
        phones.calls.clear()
        inside = [phones.add(Call(number, AUTUMN + timedelta(minutes=at))) for number, at in enumerate((31, 45, 65))]
        phones.add(Call(9, AUTUMN + timedelta(minutes=75)))
        found = await site.recordings(Window(AUTUMN + timedelta(minutes=30), AUTUMN + timedelta(minutes=75)))
        assert {r.id for r in found} == {call.id for call in inside}

    @pytest.mark.parametrize("prefix", ["", "/recording", "/recording/", "recording"])
    async def test_both_prefixes_work(self, open_site: Any, prefix: str) -> None:
        """The paths of 2017.03 and those of 2020.18 and later differ by a configured prefix, however it is written."""
        with SimulatedXivo(calls_of_the_day(2), prefix=f"/{prefix.strip('/')}".rstrip("/")) as phones:
            server_prefix, phones.prefix = phones.prefix, prefix
            site = open_site(phones)
            for recording in await site.recordings():
                call = phones.call(recording.id)
                assert call is not None
                assert await site.fetch(recording) == call.media
            assert {seen.path.rpartition("/records/")[0] for seen in phones.requests} == {server_prefix}

    async def test_the_wrong_prefix_stops_the_source(self, open_site: Any) -> None:
        """A search that is not there is a matter of configuration, and says so."""
        with SimulatedXivo(prefix="/recording") as phones:
            phones.prefix = ""
            with pytest.raises(StopSource, match="404"):
                await open_site(phones).recordings()

    async def test_the_doubled_audio_path_is_tried_and_remembered(self, open_site: Any) -> None:
        """Where `records` stands twice in the audio's path, that is found out once and used from then on."""
        with SimulatedXivo(calls_of_the_day(3), doubled=True) as phones:
            site = open_site(phones)
            for recording in await site.recordings():
                assert await site.fetch(recording)
            tried = [seen.path.startswith("/records/records/") for seen in phones.requests if "audio" in seen.path]
            assert tried == [False, True, True, True]

    async def test_many_at_once_find_the_doubled_path(self, open_site: Any) -> None:
        """Who asked for the first form while others found the second still tries the second."""
        with SimulatedXivo(calls_of_the_day(7), doubled=True) as phones:
            site = open_site(phones)
            found = await asyncio.gather(*(site.fetch(recording) for recording in await site.recordings()))
            assert sorted(found) == sorted(call.media for call in phones.calls)

    async def test_what_is_nowhere_is_missing(self, site: Any, phones: SimulatedXivo) -> None:
        """Audio that neither path has is missing; the path that works is not forgotten over it."""
        first, second, *_ = await site.recordings()
        phones.calls = [c for c in phones.calls if c.id != first.id]
        with pytest.raises(MediaNotFound, match="/records/gw1"):
            await site.fetch(first)
        phones.requests.clear()
        assert await site.fetch(second)
        assert len(phones.requests) == 1

    async def test_a_wrong_token_stops_the_source(self, site: Any, phones: SimulatedXivo) -> None:
        """A refused token is tried twice at most and the message says what to check."""
        phones.fault("status", "list", status=401)
        with pytest.raises(StopSource, match="token"):
            await site.recordings()
        assert len(phones.requests) == 2

    async def test_the_repeated_hour_is_told_apart_by_the_epoch(self, site: Any, phones: SimulatedXivo) -> None:
        """Two calls an hour apart that print the same local time keep their own start."""
        phones.calls.clear()
        starts = [AUTUMN + timedelta(minutes=30), AUTUMN + timedelta(minutes=90)]
        for number, start in enumerate(starts):
            phones.add(Call(number, start))
        found = await site.recordings(Window(AUTUMN, AUTUMN + timedelta(hours=2)))
        assert sorted(r.started_at for r in found) == starts
        assert len({r.record["start"] for r in found}) == 1
        assert all(r.notes == () for r in found)

    async def test_the_repeated_hour_without_an_epoch_is_noted(self, site: Any, phones: SimulatedXivo) -> None:
        """Without an epoch in the id the first of the two hours is taken, and the recording says that it is a guess."""
        phones.calls.clear()
        phones.add(Call(1, AUTUMN + timedelta(minutes=90), extra={"plain_id": True}))
        (found,) = await site.recordings(Window(AUTUMN, AUTUMN + timedelta(hours=2)))
        assert found.started_at == AUTUMN + timedelta(minutes=30)
        assert "twice" in found.notes[0]
        assert found.call.call_id is None

    async def test_an_epoch_that_does_not_fit_is_not_believed(self, site: Any, phones: SimulatedXivo) -> None:
        """An id whose number is not the call's time leaves the printed local time, and a note."""
        start = WINDOW.start + timedelta(minutes=9)
        phones.add(Call(40, start, id="gw1-1700000123.40"))
        found = {r.id: r for r in await site.recordings()}["gw1-1700000123.40"]
        assert found.started_at == start
        assert "does not fit" in found.notes[0]
