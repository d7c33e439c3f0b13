"""The Yeastar S-Series connector: the contract of all connectors in both API versions, and what only this API does."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from storage.sidecar import Direction
from tests.contract.vendor_contract import WINDOW, Site, VendorContract, calls_of_the_day
from tests.support.clock import FakeClock
from tests.support.simulator import Call
from tests.support.yeastar import SimulatedYeastar
from worker.errors import BadAnswer, MediaNotFound, Retry, SessionExpired, SourceError, StopSource, WaitUntil
from worker.model import Page, Readiness, Recording, Window
from worker.vendors.yeastar import Yeastar, YeastarOptions

PAYLOADS = Path(__file__).parents[1] / "payloads" / "yeastar"
STATES = {"saving": Readiness.READY, "error": Readiness.READY}  # call records know nothing of files
HEADER = "callid,timestart,callfrom,callto,callduraction,type,recording"


def failed(errno: str | int) -> bytes:
    """Return the answer that tells an error."""
    return json.dumps({"status": "Failed", "errno": errno}).encode()


class TestYeastar(VendorContract):
    simulator = SimulatedYeastar
    vendor = Yeastar
    pages = False
    states = STATES

    async def read(self, site: Site, phones: SimulatedYeastar, *lines: str, header: str = HEADER) -> Page:
        """Return what comes of a call record file of these lines."""
        phones.fault("answer", "list", body="\n".join((header, *lines)).encode(), skip=1, times=1)
        return await site.connector.list_page(WINDOW, None)

    async def read_one(self, site: Site, phones: SimulatedYeastar, *lines: str) -> Recording:
        """Return the one recording of these lines."""
        page = await self.read(site, phones, *lines)
        (recording,) = page.recordings
        assert page.unreadable == ()
        return recording

    # logging in

    async def test_a_wrong_password_is_tried_once(
        self, phones: SimulatedYeastar, open_site: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Errno 20003 stops the source, says what to check, and is not asked for again by anybody soon."""
        wrong = {**phones.settings(), "password": "not-this-one"}
        monkeypatch.setattr(phones, "settings", lambda: wrong)
        for site in (open_site(phones), open_site(phones)):
            with pytest.raises(StopSource, match="wrong user or password") as caught:
                await site.recordings()
            assert "not-this-one" not in str(caught.value)
        assert phones.logins == 1

    async def test_the_digest_of_the_password_is_hidden(self, site: Site, phones: SimulatedYeastar) -> None:
        """What is sent as password is as good as one: an answer that repeats it does not bring it into a message."""
        digest = site.connector._digest  # type: ignore[attr-defined]
        phones.fault("status", "login", status=400, body=f"refused: {digest}".encode())
        with pytest.raises(StopSource, match="refused") as caught:
            await site.recordings()
        assert digest not in str(caught.value)

    async def test_a_locked_login_is_left_alone_until_it_opens(self, site: Site, phones: SimulatedYeastar) -> None:
        """Errno 20002 waits for ten minutes, for everybody; then the login is tried once more."""
        phones.lock()
        for again in range(3):
            with pytest.raises(WaitUntil) as caught:
                await site.recordings()
            assert caught.value.seconds == pytest.approx(600, abs=1), again
        assert phones.logins == 1
        site.clock.advance(601)
        assert len(await site.recordings()) == 7

    async def test_five_failures_lock_the_simulated_system(self, phones: SimulatedYeastar, site: Site) -> None:
        """What the promise above rests on: the sixth login is refused even with the right password."""
        good = phones.password
        phones.password = "changed"
        for _ in range(5):
            with pytest.raises(StopSource):
                await site.connector._login()  # type: ignore[attr-defined]
        phones.password = good
        with pytest.raises(WaitUntil):
            await site.connector._login()  # type: ignore[attr-defined]

    @pytest.mark.parametrize("body", [b'{"status": "Success"}', b'{"status": "Success", "token": 7}'])
    async def test_a_login_without_a_token_is_an_error(self, site: Site, phones: SimulatedYeastar, body: bytes) -> None:
        """A successful login that gives nothing to go on with is not taken for one."""
        phones.fault("answer", "login", body=body)
        with pytest.raises(BadAnswer, match="no `token`"):
            await site.recordings()

    @pytest.mark.parametrize("how", ["idle", "restart"])
    async def test_a_token_that_ends_in_mid_run_costs_one_login(
        self, site: Site, phones: SimulatedYeastar, how: str
    ) -> None:
        """Errno 20006 after 30 idle minutes and 20004 after a restart log in once and lose nothing."""
        recordings = await site.recordings()
        site.clock.advance(31 * 60) if how == "idle" else phones.end_sessions()
        await asyncio.gather(*(site.media(r) for r in recordings))
        assert phones.logins == 2
        assert sum(phones.downloads.values()) == len(recordings)

    async def test_two_processes_share_one_token(self, phones: SimulatedYeastar, open_site: Any) -> None:
        """Where a second login ends the first, several processes do not throw each other out."""
        phones.single_login = True
        sites = [open_site(phones) for _ in range(3)]
        for site in sites * 2:
            assert len(await site.recordings()) == 7
        assert phones.logins == 1

    # one-time links

    async def test_a_link_is_used_in_the_slot_it_was_got_in(self, phones: SimulatedYeastar, open_site: Any) -> None:
        """With one connection every random is followed by its own download, so none waits in a queue."""
        site = open_site(phones, max_connections=1)
        recordings = await site.recordings()
        phones.requests.clear()
        await asyncio.gather(*(site.media(r) for r in recordings))
        paths = [seen.path.rsplit("/", 1)[1] for seen in phones.requests]
        assert paths == ["get_random", "download"] * len(recordings)

    @pytest.mark.parametrize("number_errors", [False, True])
    async def test_a_link_that_came_too_late_is_got_anew(
        self, site: Site, phones: SimulatedYeastar, one: Recording, number_errors: bool
    ) -> None:
        """Errno 20012, as text or as number, costs a second random and no recording."""
        phones.fault("answer", body=failed(20012 if number_errors else "20012"), times=1)
        call = phones.call(one.id)
        assert call is not None
        assert await site.media(one) == call.media
        assert site.free

    async def test_a_link_that_lived_too_long_is_refused_by_the_simulated_system(
        self, site: Site, phones: SimulatedYeastar, one: Recording, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the promise above rests on: 31 seconds after it was got, a random opens nothing."""
        issue = phones._issue

        def late(token: str, what: dict[str, str]) -> dict[str, Any]:
            told = issue(token, what)
            site.clock.advance(31)
            return told

        monkeypatch.setattr(phones, "_issue", late)
        with pytest.raises(MediaNotFound, match="20012"):
            await site.media(one)
        assert sum(phones.downloads.values()) == 0
        assert site.free

    @pytest.mark.parametrize("state", ["saving", "error"])
    async def test_a_file_that_is_not_there_is_missing(self, site: Site, phones: SimulatedYeastar, state: str) -> None:
        """Errno 20014 is told as missing, which is tried again soon after the call."""
        call = phones.add(Call(30, WINDOW.start, state=state))
        recording = next(r for r in await site.recordings() if r.id == call.id)
        phones.number_errors = state == "error"
        with pytest.raises(MediaNotFound, match="20014"):
            await site.media(recording)
        assert site.free

    async def test_a_spent_link_to_the_call_records_is_got_anew(self, site: Site, phones: SimulatedYeastar) -> None:
        """Errno 20020 in place of the CSV costs another random and no recording."""
        phones.fault("answer", "list", body=failed("20020"), skip=1, times=1)
        assert len(await site.recordings()) == 7
        assert phones.count("list") == 4

    async def test_call_records_are_asked_for_three_times(self, site: Site, phones: SimulatedYeastar) -> None:
        """Tries do not multiply: what keeps failing costs three requests."""
        phones.fault("status", "list", status=503)
        with pytest.raises(Retry):
            await site.recordings()
        assert phones.count("list") == 3

    async def test_no_call_records_are_no_error(self, site: Site, phones: SimulatedYeastar) -> None:
        """Errno 20021, on either request, is an empty window."""
        for skip in (0, 1):
            phones.fault("answer", "list", body=failed("20021"), skip=skip, times=1)
            assert await site.connector.list_page(WINDOW, None) == Page(())

    @pytest.mark.parametrize(
        ("errno", "error"),
        [
            ("10003", StopSource),
            ("20008", StopSource),
            ("20010", Retry),
            (30001, Retry),
            ("30003", Retry),
            ("20020", Retry),
            ("20019", BadAnswer),
            ("99999", BadAnswer),
            ("", BadAnswer),
            (None, BadAnswer),
        ],
    )
    async def test_what_an_errno_means(
        self, site: Site, phones: SimulatedYeastar, errno: Any, error: type[SourceError]
    ) -> None:
        """Each errno inside a status 200 has its class; an unknown one is never taken for success."""
        phones.fault("answer", "list", body=failed(errno))
        with pytest.raises(error, match=str(errno or "errno")):
            await site.recordings()
        assert phones.count("list") <= 6

    async def test_a_token_that_is_never_right_stops_the_source(self, site: Site, phones: SimulatedYeastar) -> None:
        """Errno 20005 after a fresh login is not met with another one."""
        phones.fault("answer", "list", body=failed("20005"))
        with pytest.raises(StopSource, match="fresh login") as caught:
            await site.recordings()
        assert isinstance(caught.value.__cause__, SessionExpired)
        assert phones.logins <= 2

    @pytest.mark.parametrize("body", [b'{"status": "Success"}', b'{"status": "Success", "random": ""}'])
    async def test_an_answer_without_a_random_is_an_error(
        self, site: Site, phones: SimulatedYeastar, body: bytes
    ) -> None:
        """Success without a random gives no link."""
        phones.fault("answer", "list", body=body)
        with pytest.raises(BadAnswer, match="no `random`"):
            await site.recordings()

    # rows

    async def test_documented_rows_are_understood(self, site: Site, phones: SimulatedYeastar) -> None:
        """The documented file gives one recording for each name; calls without one are not listed."""
        phones.fault("answer", "list", body=(PAYLOADS / "cdr.csv").read_bytes(), skip=1)
        page = await site.connector.list_page(WINDOW, None)
        outbound, moved = page.recordings
        assert page.unreadable == ()
        assert outbound.id == "20200512170646-1589299600.6-110-5550101-Outbound.wav"
        assert outbound.started_at == datetime(2020, 5, 12, 16, 6, 40, tzinfo=UTC)
        assert outbound.call.ended_at == datetime(2020, 5, 12, 16, 7, 41, tzinfo=UTC)
        assert (outbound.call.from_, outbound.call.to, outbound.call.call_id) == ("110", "5550101", "1589299600.6")
        assert outbound.record["sn"] == "369300000000"
        assert "rows" not in outbound.record
        assert [row["callto"] for row in moved.record["rows"]] == ["111", "112"]
        assert moved.call.direction is Direction.INBOUND
        assert moved.call.from_ == "+395550102"

    async def test_the_documented_answers_are_understood(
        self, site: Site, phones: SimulatedYeastar, one: Recording
    ) -> None:
        """The vendor's samples of login, random and failure mean what the page says."""
        phones.end_sessions()
        phones.fault("answer", "login", body=(PAYLOADS / "login-v1.1.0.json").read_bytes())
        phones.fault("answer", "list", body=(PAYLOADS / "cdr-failed.json").read_bytes())
        phones.fault("answer", "detail", body=(PAYLOADS / "recording-random.json").read_bytes())
        phones.fault("answer", "media", body=b"RIFF....WAVE")
        assert await site.recordings() == []
        assert await site.media(one) == b"RIFF....WAVE"
        assert phones.requests[-1].query["random"] == "120732c546381fb020f17fba676b0ea0"

    async def test_calls_that_were_not_recorded_are_not_listed(self, site: Site, phones: SimulatedYeastar) -> None:
        """Rows with an empty recording, or blanks, are no recordings."""
        for recording in ("", "  "):
            phones.rows.append(phones.row(Call(31, WINDOW.start, id="x"), recording=recording))
        assert len(await site.recordings()) == 7

    async def test_rows_of_one_recording_are_one_recording(self, site: Site, phones: SimulatedYeastar) -> None:
        """A transferred call has several rows: the earliest speaks, all are kept, none is fetched twice."""
        first = {"timestart": "2026-03-05 09:00:00", "callto": "1009", "callid": "S1", "callduraction": "90"}
        call = phones.add(Call(32, WINDOW.start + timedelta(minutes=5), extra={"callid": "S2", "rows": [first]}))
        (recording,) = [r for r in await site.recordings() if r.id == call.id]
        assert recording.started_at == WINDOW.start
        assert (recording.call.to, recording.call.duration_seconds) == ("1009", 90.0)
        assert [row["callid"] for row in recording.record["rows"]] == ["S2", "S1"]

    async def test_recordings_of_one_call_are_all_kept(self, site: Site, phones: SimulatedYeastar) -> None:
        """A call id is no identity: two names under one are two recordings."""
        same: dict[str, Any] = {"callid": "1772700000.9"}
        calls = [phones.add(Call(33 + n, WINDOW.start + timedelta(minutes=n), extra=same)) for n in range(2)]
        assert {c.id for c in calls} <= {r.id for r in await site.recordings()}

    async def test_a_row_of_the_wrong_width_is_reported(self, site: Site, phones: SimulatedYeastar) -> None:
        """A row with a comma too many is told with its line and costs no other."""
        phones.raw_lines.append("1772700000.1,2026-03-05 09:30:00,5550100,100,1")
        page = await site.connector.list_page(WINDOW, None)
        assert len(page.recordings) == 7
        assert page.unreadable[0].id is None
        assert "line 9 has 5 fields" in page.unreadable[0].detail

    async def test_one_readable_row_of_several_is_enough(self, site: Site, phones: SimulatedYeastar) -> None:
        """A recording whose first row has no time is dated by its second."""
        odd, good = "S1,,1,2,5,Inbound,a.wav", "S1,2026-03-05 09:30:00,1,2,5,Inbound,a.wav"
        recording = await self.read_one(site, phones, odd, good)
        assert recording.started_at == datetime(2026, 3, 5, 8, 30, tzinfo=UTC)

    async def test_a_missing_column_is_an_error(self, site: Site, phones: SimulatedYeastar) -> None:
        """A file without the recording's column is not taken for one without recordings."""
        phones.fault("answer", "list", body=b"callid,timestart\n1,2026-03-05 09:30:00\n", skip=1, times=1)
        phones.fault("answer", "list", body=failed("30003"))
        with pytest.raises(Retry):
            await site.connector.list_page(WINDOW, None)
        phones.faults.clear()
        with pytest.raises(BadAnswer, match="no column recording"):
            await self.read(site, phones, header="callid,timestart")

    @pytest.mark.parametrize(
        ("told", "name", "expected"),
        [
            ("Inbound", "a.wav", Direction.INBOUND),
            ("outbound ", "a-Inbound.wav", Direction.OUTBOUND),
            ("Transfer", "2026-17.4-1-2-Internal.wav", Direction.INTERNAL),
            ("Callback", "2026-17.4-1-2-Outbound.yswav", Direction.OUTBOUND),
            ("Callback", "2026-17.4-1-2-Callback.wav", Direction.UNKNOWN),
            ("", "a.wav", Direction.UNKNOWN),
        ],
    )
    async def test_the_direction_is_told_by_type_or_name(
        self, site: Site, phones: SimulatedYeastar, told: str, name: str, expected: Direction
    ) -> None:
        """The type decides; where it says nothing of the direction, the end of the recording's name does."""
        recording = await self.read_one(site, phones, f"1772700000.1,2026-03-05 09:40:00,1,2,5,{told},{name}")
        assert recording.call.direction is expected

    @pytest.mark.parametrize(
        ("told", "seconds"), [("12", 12.0), ("", None), ("nan", None), ("-5", None), ("long", None), ("1e300", None)]
    )
    async def test_an_odd_duration_is_left_out(
        self, site: Site, phones: SimulatedYeastar, told: str, seconds: float | None
    ) -> None:
        """A duration that is none costs the end of the call, not the recording."""
        recording = await self.read_one(site, phones, f"1772700000.1,2026-03-05 09:40:00,1,2,{told},Inbound,a.wav")
        assert recording.call.duration_seconds == seconds
        assert recording.call.ended_at == (recording.started_at + timedelta(seconds=seconds) if seconds else None)

    async def test_names_with_plus_and_the_clouds_own_format_arrive(self, site: Site, phones: SimulatedYeastar) -> None:
        """A plus in a name survives the query, and `.yswav` is handed on byte for byte."""
        call = Call(35, WINDOW.start, from_="+395550103", media=b"YSWV\x00\x01odd", extra={"suffix": ".yswav"})
        phones.add(call)
        recording = next(r for r in await site.recordings() if r.id == call.id)
        assert "+395550103" in recording.id
        assert await site.media(recording) == call.media

    # times

    async def test_the_epoch_in_the_call_id_is_the_start(self, site: Site, phones: SimulatedYeastar) -> None:
        """A phone system that prints the time of another zone is dated by its epoch, and that is noted."""
        recording = await self.read_one(site, phones, "1772704800.1,2026-03-05 18:00:00,1,2,5,Inbound,a.wav")
        assert recording.started_at == datetime(2026, 3, 5, 10, 0, tzinfo=UTC)
        assert "timezone" in recording.notes[0]

    async def test_the_night_of_the_clock_change(self, clock: FakeClock, open_site: Any) -> None:
        """In autumn's repeated hour, epochs tell the two apart; without them the first is taken and noted."""
        night = datetime(2026, 10, 25, 0, 5, tzinfo=UTC)  # 02:05 in Rome, for the first time; an hour later again
        clock.advance((night + timedelta(days=1) - clock.now()).total_seconds())
        moments = [night, night + timedelta(hours=1)]
        for epoch_ids in (True, False):
            phones = SimulatedYeastar(epoch_ids=epoch_ids)
            phones.use_clock(clock.now)
            for number, moment in enumerate(moments):
                phones.add(Call(number, moment))
            with phones:
                found = await open_site(phones).recordings(Window(night, night + timedelta(hours=2)))
            assert [r.started_at for r in found] == (moments if epoch_ids else [night, night])
            assert [bool(r.notes) for r in found] == [not epoch_ids] * 2

    async def test_a_window_around_the_clock_change_is_asked_for_whole(self, clock: FakeClock, open_site: Any) -> None:
        """Windows that begin or end inside the repeated hour miss none of its calls."""
        night = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
        clock.advance((night + timedelta(days=1) - clock.now()).total_seconds())
        phones = SimulatedYeastar()
        phones.use_clock(clock.now)
        for number in range(12):
            phones.add(Call(number, night + timedelta(minutes=10 * number)))
        with phones:
            site = open_site(phones)
            for start in (night, night + timedelta(hours=1)):
                hour = Window(start, start + timedelta(hours=1))
                assert len(await site.recordings(hour)) == 6


class NewerYeastar(SimulatedYeastar):
    def __init__(self, calls: list[Call] | None = None) -> None:
        super().__init__(calls, api_version="v2.0.0")


class TestYeastarV2(VendorContract):
    """The contract with API v2.0.0, whose paths and names of parameters differ."""

    simulator = NewerYeastar
    vendor = Yeastar
    pages = False
    states = STATES

    async def test_the_documented_login_is_understood(self, site: Site, phones: NewerYeastar) -> None:
        """The newer answer to a login has a field more, and the calls that follow have the newer path."""
        phones.fault("answer", "login", body=(PAYLOADS / "login-v2.0.0.json").read_bytes())
        phones.fault("answer", "list", body=failed("20021"))
        assert await site.recordings() == []
        assert phones.requests[-1].path == "/api/v2.0.0/cdr/get_random"
        assert phones.requests[-1].query["token"] == "1e3b3ebb6a974cb42ed31de5413df52d"

    async def test_the_older_version_is_not_supported_there(self, clock: FakeClock, open_site: Any) -> None:
        """A version that the firmware lacks stops the source and names the key to check."""
        phones = NewerYeastar(calls_of_the_day())
        phones.use_clock(clock.now)
        with phones:
            site = open_site(phones)
            options = YeastarOptions(username=phones.username, password=SecretStr(phones.password))
            older = Yeastar(site.rest, site.source.model_copy(update={"options": options}))
            with pytest.raises(StopSource, match="api_version"):
                await older.list_page(WINDOW, None)
