"""Verba's other login, by the API key alone; its options; and how strict the simulated server is."""

import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from tests.contract.vendor_contract import DAY, HOSTILE_IDS, Site
from tests.contract.vendor_listing import ListingContract
from tests.support.simulator import Call
from tests.support.verba import Failed, SimulatedVerba
from worker.errors import StopSource
from worker.model import Readiness
from worker.vendors.verba import Verba, VerbaOptions


class KeyOnlyVerba(SimulatedVerba):
    """A server whose API key needs no login; it prints GMT."""

    key_only = True
    timezone = "UTC"


class TestKeyOnlyVerba(ListingContract):
    """A server whose API key needs no login."""

    simulator = KeyOnlyVerba
    vendor = Verba
    states: ClassVar = {"saving": Readiness.READY, "error": Readiness.READY}
    hostile_ids = tuple(i for i in HOSTILE_IDS if "\x07" not in i)

    async def test_nothing_logs_in(self, site: Site, phones: KeyOnlyVerba) -> None:
        """The key is enough, and times are GMT."""
        assert [r.started_at for r in await site.recordings()] == [c.started_at for c in phones.calls]
        assert phones.count("login") == 0

    async def test_a_key_that_needs_a_login_says_so(self, site: Site, phones: KeyOnlyVerba) -> None:
        """A key whose setting was changed stops the source with what to do."""
        phones.key_only = False  # type: ignore[misc] # of this instance, which already told its settings
        with pytest.raises(StopSource, match=r"Login required\.; check user name and password"):
            await site.recordings()

    @pytest.mark.parametrize("empty", [True, False])
    async def test_a_key_that_is_read_in_the_url_alone(
        self, site: Site, phones: KeyOnlyVerba, monkeypatch: pytest.MonkeyPatch, empty: bool
    ) -> None:
        """A search that is refused as a form is asked for by its URL, whether it finds anything or nothing."""
        answer = phones._acted

        def acted(request: web.Request, action: str, _: dict[str, str]) -> web.Response:
            answered = answer(request, action, dict(request.query))
            if empty:
                raise Failed("-50", "Call cannot be found.")
            return answered

        monkeypatch.setattr(phones, "_acted", acted)
        assert len(await site.recordings()) == (0 if empty else len(phones.calls))
        assert [seen.method for seen in phones.requests][:2] == ["POST", "GET"]
        phones.requests.clear()
        await site.recordings()
        assert {seen.method for seen in phones.requests} == {"GET"}

    async def test_one_401_is_no_reason_to_stop(self, site: Site, phones: KeyOnlyVerba) -> None:
        """Without a session to renew, a refusal is asked about once more."""
        phones.fault("status", "any", status=401, times=1)
        recording = (await site.recordings())[0]
        phones.fault("status", "any", status=401, times=1)
        assert await site.fetch(recording) == phones.calls[0].media


@pytest.mark.parametrize("half", [{"username": "archive"}, {"password": SecretStr("sample")}])
def test_half_a_login_is_refused(half: dict[str, Any]) -> None:
    """User name and password belong together."""
    with pytest.raises(ValidationError, match="belong together"):
        VerbaOptions(api_key=SecretStr("sample"), **half)


class TestSimulatedVerba:
    """The simulated server is as strict as the documentation says."""

    @pytest.fixture
    def phones(self) -> Iterator[SimulatedVerba]:
        with SimulatedVerba([Call(1, DAY, extra={"modality": "voice"})]) as phones:
            yield phones

    def asked(self, phones: SimulatedVerba, **query: str) -> str:
        query = {"apiKey": phones.api_key, **query}
        url = f"{phones.url}/verba/api?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ({"action": "SearchCalls", "apiKey": "x"}, "-41"),
            ({"action": "RequestToken"}, "-40"),
            ({"action": "RequestToken", "userName": "archive", "password": "x"}, "-40"),
            ({"action": "RequestToken", "userName": "archive", "password": "verba-sample-password"}, "0"),
            ({"action": "GetMedia"}, "-42"),
            ({"action": "GetMedia", "token": "x"}, "-43"),
            ({"action": "DeleteCall"}, "-30"),
        ],
    )
    def test_requests_are_refused_in_xml_with_status_200(
        self, phones: SimulatedVerba, query: dict[str, str], code: str
    ) -> None:
        """By GET too: keys, logins, tokens and actions are looked at, and only reading ones are there."""
        assert f'code="{code}"' in self.asked(phones, **query)

    @pytest.mark.parametrize(
        "query",
        [
            {"action": "SearchCalls", "start": "2026-03-05 00:00"},
            {"action": "SearchCalls", "start": "2026-03-05T00:00", "end": "2026-03-06 00:00"},
            {"action": "SearchCalls", "start": "2026-03-05 00:00", "end": "2026-03-06 00:00", "pagelen": "x"},
            {"action": "SearchCalls", "start": "2026-03-05 00:00", "end": "2026-03-06 00:00", "status": "x"},
            {"action": "GetCallInformation"},
            {"action": "GetMedia", "extension": "1001"},
        ],
    )
    def test_parameters_are_checked(self, query: dict[str, str]) -> None:
        """What is mandatory must be there and have its form."""
        with KeyOnlyVerba([Call(1, DAY)]) as phones:
            assert 'code="-20"' in self.asked(phones, **query)
