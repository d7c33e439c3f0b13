"""Imagicle passes the vendor contract, and what is special to it."""

import base64
import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr, ValidationError

from storage.sidecar import Direction, GapReason, Verdict
from tests.contract.vendor_contract import DAY, WINDOW, Site, VendorContract, calls_of_the_day
from tests.support.audio import mp3
from tests.support.clock import FakeClock
from tests.support.imagicle import SimulatedImagicle
from tests.support.simulator import Call
from worker.errors import BadAnswer, GiveUp, MediaNotFound, StopSource
from worker.model import ClaimedHash, Readiness, Recording, Window
from worker.vendors.imagicle import Imagicle, ImagicleOptions
from worker.verify import compare_hash

PAYLOADS = Path(__file__).parents[1] / "payloads" / "imagicle"


def payload(name: str) -> bytes:
    """Return an answer constructed from documented fields."""
    return (PAYLOADS / name).read_bytes()


class TestImagicle(VendorContract):
    simulator = SimulatedImagicle
    vendor = Imagicle
    media_401_stops = False
    states: ClassVar = {"saving": Readiness.READY, "error": Readiness.READY}
    tells_agent = True

    @pytest.fixture
    def phones(self, clock: FakeClock) -> Iterator[SimulatedImagicle]:
        """The calls of the day without internal ones, which this API does not know."""
        calls = [replace(c, direction=c.direction.replace("internal", "outbound")) for c in calls_of_the_day()]
        phones = SimulatedImagicle(calls)
        phones.use_clock(clock.now)
        with phones:
            yield phones

    # documents

    async def test_documented_fields_are_read(self, site: Site, phones: SimulatedImagicle) -> None:
        """Times with an offset, with Z and with neither, numbers as texts and fields without a value are understood."""
        phones.fault("answer", "list", body=payload("recordings.json"))
        (page,) = await site.pages()
        first, second, third = page.recordings
        assert first.call.ended_at == datetime(2026, 3, 5, 10, 3, 49, tzinfo=UTC)
        assert first.call.duration_seconds == 90
        assert (first.call.from_, first.call.to, first.call.agent) == ("+3905550100", "225", "jdoe")
        assert second.started_at == datetime(2026, 3, 5, 9, 2, 19, 123456, tzinfo=UTC)
        assert (second.call.from_, second.call.to, second.call.direction) == ("226", None, Direction.OUTBOUND)
        assert second.call.ended_at is None
        assert second.notes == ("duration: 'ninety' cannot be read",)
        assert third.started_at == datetime(2026, 3, 5, 10, 30, tzinfo=UTC)
        nameless, text, startless = page.unreadable
        assert (nameless.id, text.id, startless.id) == (None, None, "11111111-2222-4333-8444-888888888888")
        assert text.record == {"value": "a text"}

    async def test_the_documented_detail_is_read(self, site: Site, phones: SimulatedImagicle) -> None:
        """The detail replaces the listed row; owner, call id, size and hash come from it, the hash as it is."""
        phones.fault("answer", "list", body=payload("recordings.json"))
        phones.fault("answer", "detail", body=payload("recording.json"))
        listed = (await site.recordings())[0]
        recording = await site.connector.describe(listed)
        assert recording.record["preservingUser"] == {"username": "officer"}
        assert "ownerUsername" not in recording.record
        assert recording.call == listed.call.model_copy(update={"call_id": "17023"})
        assert recording.expected_bytes == 450000
        assert recording.claimed_hash == ClaimedHash(
            "SHA-256", "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08"
        )

    @pytest.mark.parametrize(
        ("detail", "agent", "call_id"),
        [
            ({"owner": None, "pbxCallId": None}, "Ada Example", None),
            ({"owner": {"FirstName": "J", "lastName": "Doe"}, "pbxCallId": 17}, "Ada Example", "17"),
            ({"pbxCallId": None, "pbxInfo": {"CallID": "c-1", "pbx": "cucm"}}, "Ada Example", "c-1"),
            ({"pbxCallId": None, "pbxInfo": {"pbx": "cucm", "a": 1}}, "Ada Example", '{"a":1,"pbx":"cucm"}'),
            ({"pbxCallId": None, "pbxInfo": "c-2"}, "Ada Example", "c-2"),
            ({"pbxCallId": None, "pbxInfo": " "}, "Ada Example", None),
        ],
    )
    async def test_fields_that_differ_between_suites(
        self, site: Site, phones: SimulatedImagicle, detail: dict[str, Any], agent: str, call_id: str | None
    ) -> None:
        """Fields may be null or absent, and what names the call has changed with the years."""
        phones.calls[0].extra["detail"] = detail
        recording = await site.connector.describe((await site.recordings())[-1])
        assert (recording.call.agent, recording.call.call_id) == (agent, call_id)

    @pytest.mark.parametrize(
        ("owner", "agent"), [({"firstName": "J", "lastName": "Doe"}, "J Doe"), ({}, None), ("jdoe", None)]
    )
    async def test_an_owner_without_a_user_name(
        self, site: Site, phones: SimulatedImagicle, owner: Any, agent: str | None
    ) -> None:
        """Where the list names no user, the detail's owner counts: a user name, else the full name."""
        phones.calls[0].extra |= {"row": {"ownerUsername": None}, "detail": {"owner": owner}}
        recording = await site.connector.describe((await site.recordings())[-1])
        assert recording.call.agent == agent

    async def test_a_call_of_unknown_direction_keeps_its_parties(self, site: Site, phones: SimulatedImagicle) -> None:
        """Direction 0 does not say who called: both parties are kept, and a note says so."""
        call = phones.add(Call(40, WINDOW.end - timedelta(minutes=1), direction="internal", from_="1003", to="1004"))
        recording = await site.connector.describe((await site.recordings())[0])
        assert recording.id == call.id
        assert recording.call.direction is Direction.UNKNOWN
        assert (recording.call.from_, recording.call.to) == ("1003", "1004")
        assert len(recording.notes) == 1

    @pytest.mark.parametrize(
        ("kind", "verdict"),
        [
            ("right", Verdict.MATCH),
            ("upper", Verdict.MATCH),
            ("base64", Verdict.MATCH),
            ("wrong", Verdict.DIFFERS),
            ("absent", Verdict.ABSENT),
            ("odd", Verdict.UNRECOGNISED),
        ],
    )
    async def test_every_form_of_hash_reaches_the_verdict(
        self, site: Site, phones: SimulatedImagicle, kind: str, verdict: Verdict
    ) -> None:
        """What the detail claims is handed on verbatim, so that comparing it with the download tells the truth."""
        phones.calls[0].hash = kind
        recording = await site.connector.describe((await site.recordings())[-1])
        sha256 = hashlib.sha256(await site.media(recording)).hexdigest()
        assert compare_hash(recording.claimed_hash, sha256).verdict is verdict
        assert recording.expected_bytes == len(phones.calls[0].media)
        assert recording.notes == ()

    @pytest.mark.parametrize(
        ("told", "claimed"),
        [
            ("abc", ClaimedHash("SHA-256", "abc")),
            ({"MD5": "m", "Sha-256": "abc"}, ClaimedHash("SHA-256", "abc")),
            ({"MD5": "m", "SHA256": None}, ClaimedHash("MD5", "m")),
            ({"SHA256": 7}, ClaimedHash("SHA-256", "7")),
            ({}, None),
            ([], None),
        ],
    )
    async def test_a_hash_in_another_shape(
        self, site: Site, phones: SimulatedImagicle, told: Any, claimed: ClaimedHash | None
    ) -> None:
        """Whatever claim there is is kept; none is made up."""
        phones.calls[0].extra["detail"] = {"hash": told}
        assert (await site.connector.describe((await site.recordings())[-1])).claimed_hash == claimed

    @pytest.mark.parametrize(("told", "size"), [("450", 450), (None, None), (-1, None), (True, None), ("big", None)])
    async def test_a_size_in_another_shape(
        self, site: Site, phones: SimulatedImagicle, told: Any, size: int | None
    ) -> None:
        """A size that is none is noted and stops nothing."""
        phones.calls[0].extra["detail"] = {"size": told}
        recording = await site.connector.describe((await site.recordings())[-1])
        assert recording.expected_bytes == size
        assert len(recording.notes) == (told is not None and size is None)

    async def test_an_old_suite_is_archived_without_proof(self, site: Site, phones: SimulatedImagicle) -> None:
        """Details without size and hash are normal."""
        phones.old_suite = True
        recording = await site.connector.describe((await site.recordings())[0])
        assert (recording.expected_bytes, recording.claimed_hash, recording.notes) == (None, None, ())

    async def test_the_detail_decides_nothing_about_the_place(self, site: Site, phones: SimulatedImagicle) -> None:
        """The start that was listed stays: it is part of the archive's key."""
        phones.calls[0].extra["detail"] = {"startTime": "2026-03-06T00:00:00Z", "id": phones.calls[0].id.upper()}
        recording = await site.connector.describe((await site.recordings())[-1])
        assert recording.started_at == phones.calls[0].started_at
        assert recording.call.ended_at == phones.calls[0].ended_at

    @pytest.mark.parametrize("body", [payload("recording.json"), b"{}", b"[]", b"nothing"])
    async def test_a_wrong_detail_is_never_taken(self, site: Site, phones: SimulatedImagicle, body: bytes) -> None:
        """The detail of another recording, or none, would lend a wrong hash or lose the right one: tried again."""
        recording = (await site.recordings())[0]
        phones.fault("answer", "detail", body=body)
        with pytest.raises(BadAnswer):
            await site.connector.describe(recording)

    async def test_a_recording_another_node_does_not_have_yet_is_missing(
        self, site: Site, phones: SimulatedImagicle
    ) -> None:
        """404 right after listing, on detail and media: nodes synchronise for some minutes; then it is there."""
        call = phones.add(Call(41, WINDOW.end - timedelta(minutes=1), state="saving"))
        recording = (await site.recordings())[0]
        with pytest.raises(MediaNotFound):
            await site.connector.describe(recording)
        with pytest.raises(MediaNotFound):
            await site.media(recording)
        call.state = "complete"
        assert await site.fetch(recording) == call.media

    async def test_a_recording_the_user_may_not_see_is_a_gap(self, site: Site, phones: SimulatedImagicle) -> None:
        """403 on one detail is loud and about that one alone."""
        first, second = (await site.recordings())[:2]
        phones.fault("status", "detail", recording=first.id, status=403)
        with pytest.raises(GiveUp) as caught:
            await site.connector.describe(first)
        assert caught.value.reason is GapReason.FORBIDDEN
        assert await site.fetch(second)

    async def test_media_are_downloaded_once(self, site: Site, phones: SimulatedImagicle) -> None:
        """Each download is in the customer's audit log: one a recording."""
        for recording in await site.recordings():
            await site.fetch(recording)
        assert phones.downloads == {call.id: 1 for call in phones.calls}

    async def test_an_error_object_in_place_of_audio_is_quoted(
        self, site: Site, phones: SimulatedImagicle, one: Recording
    ) -> None:
        """The API's own reason is in the message."""
        phones.fault("answer", "media", body=b'{"reason": 2, "message": "The audio is being moved"}')
        with pytest.raises(BadAnswer, match="being moved"):
            await site.media(one)

    # listing

    async def test_the_window_goes_out_in_utc_with_a_size(self, site: Site, phones: SimulatedImagicle) -> None:
        """From just before the start; up to calls that end a day after it; never without a page size."""
        late = phones.add(Call(42, WINDOW.end - timedelta(seconds=1), seconds=20 * 3600))
        assert late.id in {r.id for r in await site.recordings()}
        assert phones.requests[-1].query == {
            "page": "0",
            "pageSize": "100",
            "startTime": "after:2026-03-05T07:59:59Z",
            "endTime": "before:2026-03-06T12:00:00Z",
        }

    async def test_shorter_pages_than_asked_for_are_walked_to_the_end(
        self, site: Site, phones: SimulatedImagicle
    ) -> None:
        """A server that caps its pages is read to the last row it announced."""
        phones.largest_page = 2
        assert len(await site.recordings()) == len(phones.calls)
        assert phones.count("list") == 4

    async def test_a_purge_on_the_way_costs_no_recording(
        self, site: Site, phones: SimulatedImagicle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows that move up while pages are walked are caught by a second walk, however long the list."""
        monkeypatch.setattr(Imagicle, "page_size", 1)

        def purge(page: int) -> None:
            phones.after_page = None
            phones.calls.remove(phones.calls[-1])  # the newest, which was on the page just served

        phones.after_page = purge
        found = {r.id for r in await site.recordings()}
        assert {call.id for call in phones.calls} <= found
        assert phones.count("list") == 2 * len(phones.calls)

    async def test_a_recording_that_arrives_on_the_way_is_listed_once(
        self, site: Site, phones: SimulatedImagicle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows that move down come twice and count once; what arrived is found by the second walk."""
        monkeypatch.setattr(Imagicle, "page_size", 3)
        arrived = Call(43, WINDOW.end - timedelta(minutes=1))

        def arrive(page: int) -> None:
            phones.after_page = None
            phones.add(arrived)

        phones.after_page = arrive
        found = [r.id for r in await site.recordings()]
        assert sorted(found) == sorted(call.id for call in phones.calls)
        assert arrived.id in found

    async def test_rows_that_are_never_shown_are_reported(self, site: Site, phones: SimulatedImagicle) -> None:
        """A list that stays shorter than it announces is walked twice, and then said so beside what it gave."""
        phones.hidden = 2
        pages = await site.pages()
        assert len([r for page in pages for r in page.recordings]) == len(phones.calls)
        (missing,) = [row for page in pages for row in page.unreadable]
        assert "announces 9 recordings and gave 7" in missing.detail

    async def test_a_list_that_announces_nothing_ends_with_an_empty_page(
        self, site: Site, phones: SimulatedImagicle
    ) -> None:
        """Without a usable total, pages are asked for until one is empty."""
        phones.fault("answer", "list", body=payload("recordings.json").replace(b": 6,", b": null,"), times=1)
        phones.fault("answer", "list", body=b'{"recordings": []}')
        assert len(await site.recordings()) == 3
        assert phones.count("list") == 2

    @pytest.mark.parametrize("body", [b"{}", b'{"totalCount": 0, "recordings": {}}', b'{"totalCount": 0}'])
    async def test_an_object_without_a_list_is_an_error(
        self, site: Site, phones: SimulatedImagicle, body: bytes
    ) -> None:
        """Never an empty listing."""
        phones.fault("answer", "list", body=body)
        with pytest.raises(BadAnswer):
            await site.recordings()

    async def test_a_refused_filter_stops_the_source_with_its_reason(
        self, site: Site, phones: SimulatedImagicle
    ) -> None:
        """The API's own sentence says what it did not like."""
        body = b'{"reason": 0, "message": "Filter is not valid"}'
        phones.fault("status", "list", status=400, body=body)
        with pytest.raises(StopSource, match="Filter is not valid"):
            await site.recordings()

    async def test_a_long_span_is_asked_for_in_parts(self, site: Site, phones: SimulatedImagicle) -> None:
        """A week at a time, each recording once."""
        found = await site.recordings(Window(DAY - timedelta(days=9), DAY + timedelta(days=1)))
        assert len(found) == len(phones.calls)
        assert phones.count("list") == 2

    async def test_a_wrong_password_stops_the_source(self, site: Site, phones: SimulatedImagicle) -> None:
        """A sentence for people after the second refusal."""
        phones.password = "changed since"
        with pytest.raises(StopSource, match="check user name and password"):
            await site.recordings()
        assert len(phones.requests) == 2


def test_what_a_different_hash_does_is_one_of_two() -> None:
    """`on_hash_mismatch` is `quarantine` unless told otherwise, and nothing else than that or `warn`."""
    keys = {"username": "archive", "password": SecretStr("sample")}
    assert ImagicleOptions(**keys).on_hash_mismatch == "quarantine"
    assert ImagicleOptions(**keys, on_hash_mismatch="warn").on_hash_mismatch == "warn"
    with pytest.raises(ValidationError, match="quarantine"):
        ImagicleOptions(**keys, on_hash_mismatch="ignore")


class TestSimulatedImagicle:
    """The simulated server is as strict as the documentation says."""

    @pytest.fixture
    def phones(self) -> Iterator[SimulatedImagicle]:
        with SimulatedImagicle([Call(1, DAY), Call(2, DAY + timedelta(hours=1), media=mp3(3))]) as phones:
            yield phones

    def asked(self, phones: SimulatedImagicle, path: str, password: str | None = None) -> tuple[int, str]:
        request = urllib.request.Request(f"{phones.url}/fw/Apps/Recorder/WebAPI/Recordings{path}")
        pair = f"{phones.username}:{password or phones.password}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    @pytest.mark.parametrize(
        ("path", "status", "part"),
        [
            ("?page=x", 400, '"reason": 1'),
            ("?pageSize=0", 400, '"reason": 1'),
            ("?startTime=between:2026-03-05T00:00:00Z", 400, '"reason": 0'),
            ("?startTime=after:2026-03-05T00:00:00", 400, "no zone"),
            ("?sort=asc", 400, "Unknown filter"),
            ("/?startTime=2026-03-05T00:00:00Z", 200, '"totalCount": 1'),
            ("?startTime=before:2026-03-05T00:30:00Z", 200, '"totalCount": 1'),
            ("?localPartyNumber=1001", 200, '"totalCount": 2'),
            ("/not-a-guid", 400, "not a valid GUID"),
            ("/014309c0-cc7c-4be1-b6ee-6011a67441aa/Media", 404, "does not exist"),
        ],
    )
    def test_requests_are_checked(self, phones: SimulatedImagicle, path: str, status: int, part: str) -> None:
        """Filters, paging and ids are looked at, and refused with the documented statuses."""
        answered = self.asked(phones, path)
        assert answered[0] == status
        assert part in answered[1]

    def test_everybody_else_is_refused(self, phones: SimulatedImagicle) -> None:
        """A wrong password is 401 on each resource."""
        for path in ("", "/014309c0-cc7c-4be1-b6ee-6011a67441aa"):
            assert self.asked(phones, path, password="wrong")[0] == 401
