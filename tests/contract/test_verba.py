"""Verba passes the vendor contract, and what is special to it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from storage.sidecar import Direction, GapReason
from tests.contract.vendor_contract import DAY, HOSTILE_IDS, WINDOW, Site, VendorContract
from tests.support.clock import FakeClock
from tests.support.simulator import Call
from tests.support.verba import SimulatedVerba
from worker.errors import BadAnswer, GiveUp, MediaNotFound, NotYet, Retry, SourceError, StopSource
from worker.model import Readiness, Recording, Window
from worker.vendors.verba import Verba

PAYLOADS = Path(__file__).parents[1] / "payloads" / "verba"
AUTUMN = datetime(2025, 10, 26, tzinfo=UTC)  # Budapest reads 02:00 to 03:00 twice, from 00:00 and from 01:00 UTC


def payload(name: str) -> bytes:
    """Return an answer constructed from documented fields."""
    return (PAYLOADS / name).read_bytes()


def error(code: str, said: str = "No.") -> bytes:
    """Return an error document."""
    return f'<VerbaApi><Response code="{code}"><ErrorMessage>{said}</ErrorMessage></Response></VerbaApi>'.encode()


class TestVerba(VendorContract):
    simulator = SimulatedVerba
    vendor = Verba
    states: ClassVar = {"saving": Readiness.READY, "error": Readiness.READY}
    details = True
    tells_agent = True
    hostile_ids = tuple(i for i in HOSTILE_IDS if "\x07" not in i)
    """XML 1.0 cannot hold a control character."""

    # documents

    async def test_documented_fields_are_read_wherever_they_stand(self, site: Site, phones: SimulatedVerba) -> None:
        """The list may be the root, and each of the names that its times, ids and directions are known by counts."""
        phones.fault("answer", "list", body=payload("search-calls.xml"))
        page, repeated = await site.pages()
        assert (repeated.recordings, repeated.unreadable) == ((), ())
        first, second, third, last = page.recordings
        assert first.started_at == datetime(2026, 3, 5, 9, 2, 19, 673000, tzinfo=UTC)
        assert first.call.ended_at == datetime(2026, 3, 5, 9, 2, 24, 325000, tzinfo=UTC)
        assert first.call.duration_seconds == 4
        assert (first.call.from_, first.call.to, first.call.agent) == ("1000", "2000", "Ada Example")
        assert first.call.direction is Direction.OUTBOUND
        assert first.record["audio_codec"] == "G.711 A-law"
        assert (second.call.from_, second.call.ended_at, second.call.duration_seconds) == ("Ada Example", None, None)
        assert second.call.direction is Direction.UNKNOWN
        assert second.record["tag"] == ["red", "blue", {"@level": "2", "#text": "green"}]
        assert (third.id[-4:], third.readiness, third.vendor_state) == ("7777", Readiness.NOT_YET, "state 3")
        assert "before the start" in third.notes[0]
        assert third.call.ended_at is None
        assert last.call.ended_at == last.started_at + timedelta(minutes=1)
        assert "end_time" in last.notes[0]
        (nameless,) = page.unreadable
        assert nameless.id is None

    async def test_call_information_fills_in_what_the_search_left_out(self, site: Site, phones: SimulatedVerba) -> None:
        """Details stand in the record; they add the call id, and change nothing the search said."""
        phones.fault("answer", "list", body=payload("search-calls.xml"))
        phones.fault("answer", "detail", body=payload("get-call-information.xml"))
        listed = (await site.recordings())[0]
        described = await site.connector.describe(listed)
        assert described.call == listed.call.model_copy(update={"call_id": "native-1"})
        assert described.record["call_information"]["shared_item"] == {"@id": "5", "title": "sample"}
        assert described.record["audio_codec"] == "G.711 A-law"

    async def test_metadata_fields_of_the_site_are_asked_for(self, one: Recording) -> None:
        """Custom fields come with the call information and are kept."""
        assert one.record["call_information"]["metadata"] == {"field": {"@name": "case", "#text": "case-0"}}
        assert one.call.call_id == "platform-0"

    @pytest.mark.parametrize("tag", ["starttime", "startdate"])
    async def test_other_names_of_the_times_are_known(self, site: Site, phones: SimulatedVerba, tag: str) -> None:
        """Servers call the start of a call by three names."""
        phones.time_tag = tag
        assert {r.started_at for r in await site.recordings()} == {c.started_at for c in phones.finished()}

    async def test_a_direction_the_search_does_not_tell_is_taken_from_the_details(
        self, site: Site, phones: SimulatedVerba
    ) -> None:
        """Direction 0 is internal, by the vendor's page."""
        phones.calls[2].extra["row"] = {"userdirection": None}
        recording = (await site.recordings())[2]
        assert recording.call.direction is Direction.UNKNOWN
        assert (await site.connector.describe(recording)).call.direction is Direction.INTERNAL

    @pytest.mark.parametrize(
        "body",
        [
            error("-1"),
            error("-30"),
            error("-50"),
            b"<VerbaApi/>",
            payload("get-call-information.xml"),  # of another call
            b"<a",
        ],
    )
    async def test_details_that_cannot_be_had_are_a_note(self, site: Site, phones: SimulatedVerba, body: bytes) -> None:
        """An old server without that action, a broken answer or one about another call costs the details alone."""
        recording = (await site.recordings())[0]
        phones.fault("answer", "detail", body=body)
        described = await site.connector.describe(recording)
        assert len(described.notes) == 1
        assert described.record == recording.record
        assert await site.media(described)

    async def test_credentials_that_a_record_repeats_are_taken_out(self, site: Site, phones: SimulatedVerba) -> None:
        """A link in a record may hold the API key; it reaches no sidecar."""
        phones.calls[0].extra["row"] = {"url": f"http://pbx.example.net/?apiKey={phones.api_key}&id=1"}
        recording = (await site.recordings())[0]
        assert recording.record["url"] == "http://pbx.example.net/?apiKey=***&id=1"

    # listing

    async def test_the_search_is_in_local_time_and_wide_enough(self, site: Site, phones: SimulatedVerba) -> None:
        """The window goes out in the server's zone, an hour earlier and a day and an hour later, oldest first."""
        await site.recordings(Window(DAY, DAY + timedelta(hours=4)))
        search = next(seen for seen in phones.requests if seen.purpose == "list")
        assert (search.query["start"], search.query["end"]) == ("2026-03-05 00:00:00", "2026-03-06 06:00:00")
        assert (search.query["orderby"], search.query["order"], search.query["pagefirst"]) == ("start_time", "asc", "0")

    async def test_a_long_span_is_asked_for_day_by_day(self, site: Site, phones: SimulatedVerba) -> None:
        """Small windows rather than deep pages, and no call twice."""
        found = await site.recordings(Window(DAY - timedelta(days=2), DAY + timedelta(days=1)))
        assert [r.id for r in found] == [c.id for c in phones.calls]
        assert phones.count("list") <= 3 * 2  # days, each with the empty page that ends it

    async def test_a_server_with_shorter_pages_is_read_to_its_end(
        self, site: Site, phones: SimulatedVerba, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A page shorter than it was asked for is not the last: only an empty one is."""
        inner = phones._search
        monkeypatch.setattr(phones, "_search", lambda told: inner({**told, "pagelen": "3"}))
        assert len(await site.recordings()) == len(phones.calls)
        pages = [seen.query["pagefirst"] for seen in phones.requests if seen.purpose == "list"]
        assert pages == ["0", "3", "6", "7"]

    @pytest.mark.parametrize("size", [2, 100])
    async def test_a_server_without_pages_is_asked_twice(
        self, site: Site, phones: SimulatedVerba, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        """Everything came with the first answer, more or less than was asked for, and the second repeats it."""
        monkeypatch.setattr(Verba, "page_size", size)
        inner = phones._search
        monkeypatch.setattr(phones, "_search", lambda told: inner({**told, "pagefirst": "0", "pagelen": "20"}))
        assert len(await site.recordings()) == len(phones.calls)
        assert phones.count("list") == 2

    async def test_the_repeated_hour_is_noted(self, site: Site, phones: SimulatedVerba) -> None:
        """In the hour that autumn repeats the first is taken and said so; start and duration give the end."""
        for number, minutes in ((200, -5), (201, 30), (202, 70)):
            phones.add(Call(number, AUTUMN + timedelta(minutes=minutes), 600))
        phones.calls[-1].extra["row"] = {"duration": None}
        before, first, second = await site.recordings(Window(AUTUMN - timedelta(hours=1), AUTUMN + timedelta(hours=3)))
        assert before.started_at == AUTUMN - timedelta(minutes=5)
        assert before.call.ended_at == AUTUMN + timedelta(minutes=5)
        assert before.notes == ()
        assert first.started_at == AUTUMN + timedelta(minutes=30)
        assert "occurs twice" in first.notes[0]
        assert second.started_at == AUTUMN + timedelta(minutes=10)
        assert second.call.duration_seconds == 600
        assert any("printed end" in note for note in second.notes)

    async def test_no_call_found_is_an_empty_listing(self, site: Site, phones: SimulatedVerba) -> None:
        """A server that says so by an error means that there is none."""
        phones.fault("answer", "list", body=payload("error.xml"))
        assert await site.recordings() == []

    @pytest.mark.parametrize(
        "body", [b"<VerbaApi><other/></VerbaApi>", b'<verbacdrlist rowcount="2"><cdr/><cdr/></verbacdrlist>']
    )
    async def test_rows_by_another_name_are_no_empty_listing(
        self, site: Site, phones: SimulatedVerba, body: bytes
    ) -> None:
        """A document that is no list, or that announces calls and shows none, is an error."""
        phones.fault("answer", "list", body=body)
        with pytest.raises(BadAnswer):
            await site.recordings()

    @pytest.mark.parametrize("body", [b'<verbacdrlist rowcount="0"/>', b'<Response code="0"/>'])
    async def test_an_empty_list_says_so_in_two_ways(self, site: Site, phones: SimulatedVerba, body: bytes) -> None:
        """An empty list, or a bare success, is a listing without calls."""
        phones.fault("answer", "list", body=body)
        assert await site.recordings() == []

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ("-1", BadAnswer),
            ("-10", StopSource),
            ("-20", StopSource),
            ("-41", StopSource),
            ("-70", BadAnswer),
            ("99", BadAnswer),
            ("", BadAnswer),
        ],
    )
    async def test_what_an_error_code_on_the_listing_means(
        self, site: Site, phones: SimulatedVerba, code: str, expected: type[SourceError]
    ) -> None:
        """What a person must mend stops the source, the rest is tried again; status 200 makes nothing good."""
        phones.fault("answer", "list", body=error(code, "Something."))
        with pytest.raises(expected, match=r"Something\."):
            await site.recordings()
        assert phones.count("login") == 1

    async def test_an_older_form_of_errors_is_known(self, site: Site, phones: SimulatedVerba) -> None:
        """The message may be an attribute."""
        phones.fault("answer", "list", body=b'<VerbaApi><Response code="2" description="Processing Error"/></VerbaApi>')
        with pytest.raises(BadAnswer, match="error 2: Processing Error"):
            await site.recordings()

    # sessions

    async def test_a_token_that_ran_out_costs_one_login(
        self, site: Site, phones: SimulatedVerba, clock: FakeClock
    ) -> None:
        """An hour later, and after a restart of the server, the next request logs in again and is repeated."""
        recording = (await site.recordings())[0]
        clock.advance(3601)
        assert await site.media(recording) == phones.calls[0].media
        assert phones.count("login") == 2
        phones.expire_tokens()
        assert len(await site.recordings()) == len(phones.calls)
        assert phones.count("login") == 3

    @pytest.mark.parametrize(
        ("code", "said"), [("7", "Please log in."), ("8", "The session has expired."), ("-42", "No."), ("-43", "No.")]
    )
    async def test_a_message_that_asks_for_a_login_gets_one(
        self, site: Site, phones: SimulatedVerba, code: str, said: str
    ) -> None:
        """By its words, whatever its code, or by its code."""
        recording = (await site.recordings())[0]
        phones.fault("answer", "media", body=error(code, said), times=1)
        assert await site.media(recording) == phones.calls[0].media
        assert phones.count("login") == 2

    @pytest.mark.parametrize("page", [b"<html><a href='login'>Log in</a></html>", b"<html><br>Sign in"])
    async def test_a_login_page_gets_a_login(self, site: Site, phones: SimulatedVerba, page: bytes) -> None:
        """A web page that asks for a login, well formed or not, means that the session is over."""
        await site.recordings()
        phones.fault("answer", "list", body=page, times=1)
        assert len(await site.recordings()) == len(phones.calls)
        assert phones.count("login") == 2

    async def test_another_web_page_is_no_answer(self, site: Site, phones: SimulatedVerba) -> None:
        """A page of a proxy's is an error without a login."""
        phones.fault("answer", "list", body=b"<html>Out of order</html>")
        with pytest.raises(BadAnswer, match="web page"):
            await site.recordings()
        assert phones.count("login") == 1

    async def test_the_session_cookie_may_come_as_a_header_alone(self, site: Site, phones: SimulatedVerba) -> None:
        """A server whose answer does not name the session is understood by its Set-Cookie."""
        phones.session_in_answer = False
        recording = (await site.recordings())[0]
        assert await site.media(recording) == phones.calls[0].media
        assert phones.count("login") == 1

    async def test_another_process_uses_the_token_and_its_cookie(
        self, site: Site, phones: SimulatedVerba, open_site: Any
    ) -> None:
        """One login a machine: token and session are kept together."""
        await site.recordings()
        assert len(await open_site(phones).recordings()) == len(phones.calls)
        assert phones.count("login") == 1

    async def test_the_documented_token_answer_is_read(self, site: Site, phones: SimulatedVerba) -> None:
        """Token, session and the name of the cookie come from the answer; both go with the next request."""
        phones.fault("answer", "login", body=payload("request-token.xml"))
        phones.fault("answer", "list", body=b'<Response code="0"/>')
        await site.recordings()
        assert phones.requests[-1].headers["Cookie"] == f"JSESSIONID={'0' * 32}"

    @pytest.mark.parametrize("session", ["<SessionId>a; b</SessionId>", ""])
    async def test_a_token_may_be_an_element_and_the_session_missing(
        self, site: Site, phones: SimulatedVerba, session: str
    ) -> None:
        """A session id that is no cookie is not sent as one."""
        body = f'<VerbaApi><Response code="0"><Token> abc </Token></Response>{session}</VerbaApi>'
        phones.fault("answer", "login", body=body.encode())
        phones.fault("answer", "list", body=b'<Response code="0"/>')
        await site.recordings()
        assert "Cookie" not in phones.requests[-1].headers

    @pytest.mark.parametrize("body", [b'<Response code="0"/>', b'<Response code="0" token=" "/>', error("-1")])
    async def test_a_login_without_a_token_is_tried_again(
        self, site: Site, phones: SimulatedVerba, body: bytes
    ) -> None:
        """No token and no refusal is no wrong password."""
        phones.fault("answer", "login", body=body, times=1)
        with pytest.raises(Retry):
            await site.recordings()
        assert len(await site.recordings()) == len(phones.calls)

    @pytest.mark.parametrize("what", ["password", "api_key"])
    async def test_wrong_credentials_stop_the_source(self, site: Site, phones: SimulatedVerba, what: str) -> None:
        """A refused login is a sentence for people, and is not repeated at once."""
        setattr(phones, what, "changed since")
        for _ in range(2):
            with pytest.raises(StopSource, match="check `api_key`"):
                await site.recordings()
        logins = [seen.method for seen in phones.requests if seen.purpose == "login"]
        # a key that is not known may be one that was not read: that is asked once more in the other way
        assert logins == (["POST"] if what == "password" else ["POST", "GET"])

    async def test_any_other_refusal_of_a_login_is_not_repeated_either(
        self, site: Site, phones: SimulatedVerba
    ) -> None:
        """An account may be locked in words that nobody documented."""
        phones.fault("answer", "login", body=error("2", "Login failed."))
        for _ in range(2):
            with pytest.raises(StopSource, match=r"Login failed\."):
                await site.recordings()
        assert phones.count("login") == 1

    async def test_no_credential_is_in_an_address(self, site: Site, phones: SimulatedVerba) -> None:
        """Key and token are posted, so they are in no access log."""
        for recording in await site.recordings():
            await site.fetch(recording)
        for seen in phones.requests:
            assert seen.method == "POST"
            assert not {"apiKey", "token", "userName", "password"} & set(seen.query)

    async def test_a_server_that_reads_no_forms_is_asked_by_its_url(
        self, site: Site, phones: SimulatedVerba, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One refused request shows it; from then on everything stands in the URL, also for media."""
        answer = phones._acted
        monkeypatch.setattr(phones, "_acted", lambda request, action, _: answer(request, action, dict(request.query)))
        for recording in await site.recordings():
            call = phones.call(recording.id)
            assert call is not None
            assert await site.fetch(recording) == call.media
        assert [seen.method for seen in phones.requests].count("POST") == 1
        assert phones.requests[0].method == "POST"
        assert phones.count("login") == 2

    @pytest.mark.parametrize("status", [400, 403, 404, 405])
    async def test_a_server_that_takes_no_posts_is_asked_by_its_url(
        self, site: Site, phones: SimulatedVerba, status: int
    ) -> None:
        """A status may say as well that a form is not what is expected."""
        phones.fault("status", "login", status=status, times=1)
        assert len(await site.recordings()) == len(phones.calls)
        assert {seen.method for seen in phones.requests[1:]} == {"GET"}

    async def test_a_refusal_after_that_puts_nothing_in_an_address(self, site: Site, phones: SimulatedVerba) -> None:
        """A key that is revoked later was understood before: it is not sent again in the URL."""
        await site.recordings()
        refusal = b'<VerbaApi><Response code="-41"><ErrorMessage>Invalid API key.</ErrorMessage></Response></VerbaApi>'
        phones.fault("answer", "list", body=refusal)
        with pytest.raises(StopSource):
            await site.recordings()
        assert {seen.method for seen in phones.requests} == {"POST"}

    # media

    async def test_the_id_parameter_is_learned_once(self, site: Site, phones: SimulatedVerba) -> None:
        """A server that knows the newer name alone is asked with the older one once in a process."""
        phones.id_names = ("ccdr_id",)
        for recording in await site.recordings():
            call = phones.call(recording.id)
            assert call is not None
            assert await site.media(recording) == call.media
        assert phones.count("media") == len(phones.calls) + 1

    async def test_the_error_that_says_more_is_kept(self, site: Site, phones: SimulatedVerba) -> None:
        """When neither name helps, "cannot be found" counts for more than "invalid parameters"."""
        recordings = await site.recordings()
        phones.id_names = ("ccdr_id",)
        phones.calls.remove(phones.calls[0])
        with pytest.raises(MediaNotFound):
            await site.media(recordings[0])
        phones.id_names = ()
        with pytest.raises(GiveUp) as caught:
            await site.media(recordings[1])
        assert caught.value.reason is GapReason.VENDOR_ERROR

    async def test_media_that_are_not_there_yet_are_waited_for(
        self, site: Site, phones: SimulatedVerba, clock: FakeClock
    ) -> None:
        """A finished call without media is not yet, until `give_up_after` has passed; then the media are missing."""
        call = phones.add(Call(150, WINDOW.start, state="saving"))
        recording = next(r for r in await site.recordings() if r.id == call.id)
        with pytest.raises(NotYet):
            await site.media(recording)
        clock.advance(site.source.give_up_after.total_seconds())
        with pytest.raises(GiveUp) as caught:
            await site.media(recording)
        assert caught.value.reason is GapReason.MEDIA_MISSING
        call.state = "complete"
        assert await site.media(recording) == call.media

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (payload("error.xml"), MediaNotFound),
            (error("-50"), MediaNotFound),
            (error("-30"), GiveUp),
            (error("-1"), BadAnswer),
            (error("-41"), StopSource),
            (error("-43"), StopSource),
            (b'<Response code="0"/>', BadAnswer),
        ],
    )
    async def test_an_error_document_in_place_of_audio_is_understood(
        self, site: Site, phones: SimulatedVerba, body: bytes, expected: type[SourceError]
    ) -> None:
        """The code decides, with status 200 as with any; no document is handed on as a recording."""
        recording = (await site.recordings())[0]
        phones.fault("answer", "media", body=body)
        with pytest.raises(expected):
            await site.media(recording)
        assert site.free

    @pytest.mark.parametrize("where", ["row", "detail"])
    async def test_a_record_without_sound_is_a_gap(self, site: Site, phones: SimulatedVerba, where: str) -> None:
        """A chat is listed beside the calls; it is named as what it is and not downloaded."""
        phones.calls[0].extra[where] = {"modality" if where == "row" else "modality_id": "im"}
        if where == "detail":
            phones.calls[0].extra["row"] = {"modality": None}
        recording = await site.connector.describe((await site.recordings())[0])
        with pytest.raises(GiveUp, match="modality 'im'") as caught:
            await site.media(recording)
        assert caught.value.reason is GapReason.NOT_AUDIO
        assert phones.count("media") == 0
        assert phones.count("detail") == (0 if where == "row" else 1)
