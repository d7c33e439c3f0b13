"""What the vendor contract promises when a source refuses, fails or misleads, and that no credential gets out."""

import contextlib
import json
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from storage.sidecar import GapReason
from tests.contract.vendor_site import LOGIN_PAGE, Site, VendorSite, secrets_sent
from tests.support.other_origin import OtherOrigin
from tests.support.simulator import Simulator
from worker.errors import (
    BadAnswer,
    GiveUp,
    Retry,
    SourceError,
    StopSource,
    WaitUntil,
)
from worker.model import Recording


class RefusalContract(VendorSite):
    """Sessions, waits, troubles and lies."""

    @pytest.mark.parametrize("purpose", ["list", "media"])
    async def test_one_401_is_renewed_and_repeated(self, site: Site, phones: Simulator, purpose: str) -> None:
        """A session that ends in mid-run costs a login at most, and nothing of the run."""
        await site.recordings()
        phones.fault("status", purpose, status=401, times=1)
        for recording in await site.recordings():
            call = phones.call(recording.id)
            assert call is not None
            assert await site.fetch(recording) == call.media
        assert phones.count("login") <= 2

    @pytest.mark.parametrize("purpose", ["list", "media"])
    async def test_a_401_that_stays_stops_the_source(self, site: Site, phones: Simulator, purpose: str) -> None:
        """When a fresh login is refused too, nothing more is tried, so that no account is locked.

        Where no login is needed the same password has just served the listing: one recording is refused.
        """
        recording = await site.connector.describe((await site.recordings())[0])
        phones.fault("status", purpose, status=401)
        asked = len(phones.requests)
        expected = StopSource if purpose == "list" or self.media_401_stops else Retry
        with pytest.raises(SourceError) as caught:
            await (site.recordings() if purpose == "list" else site.media(recording))
        assert type(caught.value) is expected
        assert phones.count("login") <= 3
        assert len(phones.requests) - asked <= 6
        assert site.free

    async def test_a_refused_login_is_not_repeated(self, site: Site, phones: Simulator, open_site: Any) -> None:
        """A login answered 401 stops the source; asking again soon, in another process too, does not log in again."""
        phones.fault("status", "login", status=401)
        for again in (site, site, open_site(phones)):
            with contextlib.suppress(StopSource):
                await again.recordings()
                assert not phones.count("login"), "a refused login was taken for a good one"
        assert phones.count("login") <= 1

    async def test_403_on_the_listing_stops_the_source(self, site: Site, phones: Simulator) -> None:
        """No right to list is nothing that passes by itself."""
        phones.fault("status", "list", status=403)
        with pytest.raises(StopSource):
            await site.recordings()

    @pytest.mark.parametrize("purpose", ["list", "media"])
    @pytest.mark.parametrize("form", ["seconds", "date"])
    async def test_a_wait_is_waited_as_told(self, site: Site, phones: Simulator, purpose: str, form: str) -> None:
        """429 with Retry-After in seconds or as a date: the source is left alone that long, then asked again."""
        recording = await site.connector.describe((await site.recordings())[0])
        told = "7" if form == "seconds" else format_datetime(site.clock.now() + timedelta(seconds=7), usegmt=True)
        phones.fault("status", purpose, status=429, headers={"Retry-After": told}, times=1)
        before = site.clock.now()
        if purpose == "media":
            with contextlib.suppress(Retry):
                await site.media(recording)
            assert await site.media(recording)
        else:
            assert await site.recordings()
        assert site.clock.now() - before >= timedelta(seconds=7)

    async def test_a_long_wait_is_handed_up(self, site: Site, phones: Simulator) -> None:
        """A wait longer than a pass has patience for is reported with its seconds, and nothing more is asked."""
        phones.fault("status", "list", status=429, headers={"Retry-After": "600"})
        with pytest.raises(WaitUntil) as caught:
            await site.recordings()
        assert caught.value.seconds == pytest.approx(600, abs=5)
        asked = len(phones.requests)
        with pytest.raises(WaitUntil):
            await site.recordings()
        assert len(phones.requests) == asked

    @pytest.mark.parametrize("kind", ["status", "reset", "truncate"])
    async def test_a_passing_trouble_with_the_listing_is_got_over(
        self, site: Site, phones: Simulator, kind: str
    ) -> None:
        """One 5xx, reset or cut answer costs a second request and no recording."""
        phones.fault(kind, "list", status=503, times=1, after=10)
        assert len(await site.recordings()) == len(phones.finished())

    @pytest.mark.parametrize("kind", ["status", "reset", "truncate"])
    async def test_a_lasting_trouble_with_the_listing_is_handed_up(
        self, site: Site, phones: Simulator, kind: str
    ) -> None:
        """A listing that keeps failing ends as something to retry after a few requests."""
        phones.fault(kind, "list", status=503, after=10)
        with pytest.raises(Retry):
            await site.recordings()
        assert phones.count("list") <= 12
        assert site.free

    @pytest.mark.parametrize("body", [LOGIN_PAGE, b"", b"\x00\xff\xfe", b'"text"', b"[[[[", b"<a><b></a>"])
    async def test_a_listing_of_something_else_is_an_error(self, site: Site, phones: Simulator, body: bytes) -> None:
        """A login page or garbage in place of a listing is an error, never an empty listing."""
        phones.fault("answer", "list", body=body)
        with pytest.raises((BadAnswer, StopSource)):
            await site.recordings()
        assert phones.count("login") <= 3
        assert site.free

    async def test_a_huge_listing_is_refused(self, site: Site, phones: Simulator) -> None:
        """An answer beyond the ceiling is not read to its end."""
        phones.fault("answer", "list", body=b" " * (17 * 1024 * 1024))
        with pytest.raises(BadAnswer, match="longer than"):
            await site.recordings()
        assert site.free

    @pytest.mark.parametrize("purpose", ["list", "media"])
    async def test_a_redirect_elsewhere_is_refused(self, site: Site, phones: Simulator, purpose: str) -> None:
        """A redirect to another origin is not followed: nothing, and so no credential, arrives there."""
        recording = await site.connector.describe((await site.recordings())[0])
        with OtherOrigin() as other:
            phones.fault("redirect", purpose, headers={"Location": f"{other.url}/steal?x=1"})
            with pytest.raises((GiveUp, StopSource)) as caught:
                await (site.recordings() if purpose == "list" else site.media(recording))
            assert other.requests == []
        if isinstance(caught.value, GiveUp):
            assert caught.value.reason is GapReason.FOREIGN_ORIGIN
        assert site.free

    @pytest.mark.parametrize("purpose", ["login", "list", "detail", "media"])
    @pytest.mark.parametrize("status", [200, 400, 403, 404, 500])
    async def test_no_secret_is_in_any_message(
        self, site: Site, phones: Simulator, purpose: str, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A phone system that answers with everything it was sent puts no credential into an error, note or log."""
        recording: Recording | None = None
        if purpose != "login":
            recording = (await site.recordings())[0]
        phones.fault("echo", purpose, status=status)
        said: list[str] = []
        try:
            recordings = await site.recordings()
            described = await site.connector.describe(recording or recordings[0])
            said += described.notes
            await site.media(described)
        except SourceError as error:
            said += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
        for secret in secrets_sent(phones) | set(site.source.secrets()):
            assert secret not in "\n".join(said)
            assert secret not in caplog.text

    async def test_records_and_references_hold_no_session_token(self, site: Site, phones: Simulator) -> None:
        """What is kept of a recording has no credential in it, so none reaches a queue or a sidecar."""
        recordings = [await site.connector.describe(r) for r in await site.recordings()]
        kept = json.dumps([r.to_json() for r in recordings])
        for secret in secrets_sent(phones) | set(site.source.secrets()):
            assert secret not in kept
