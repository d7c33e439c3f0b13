"""One login for a source: shared, kept, renewed once, and never hammered."""

import asyncio
import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import FakeClock
from worker.errors import LoginPage, NotAudio, Retry, SessionExpired, StopSource
from worker.rest.session import REFUSED_FOR, Session, TokenFile


class Phones:
    """The other side: gives out numbered tokens and knows which are good."""

    def __init__(self) -> None:
        self.logins = 0
        self.good: set[str] = set()
        self.refuses: Exception | None = None
        self.hidden: list[str] = []
        self.clock = FakeClock()

    async def login(self) -> str:
        self.logins += 1
        await asyncio.sleep(0)
        if self.refuses:
            raise self.refuses
        token = f"token-{self.logins}"
        self.good = {token}
        return token

    async def call(self, token: str) -> str:
        await asyncio.sleep(0)
        if token not in self.good:
            raise SessionExpired("401")
        return token

    def session(self, folder: Path, identity: str = "api") -> Session:
        return Session(TokenFile(folder, "hq", identity), self.login, self.hidden.append, self.clock)


@pytest.fixture
def phones() -> Phones:
    """Return a phone system without sessions."""
    return Phones()


async def test_one_login_serves_all_calls(phones: Phones, tmp_path: Path) -> None:
    """Many calls at once, and later ones, share one token, which is hidden from messages."""
    session = phones.session(tmp_path)
    assert set(await asyncio.gather(*(session.run(phones.call) for _ in range(10)))) == {"token-1"}
    assert await session.run(phones.call) == "token-1"
    assert phones.logins == 1
    assert phones.hidden == ["token-1"]


async def test_a_token_that_ran_out_is_renewed_once(phones: Phones, tmp_path: Path) -> None:
    """Ten calls that find their session ended cost one login together."""
    session = phones.session(tmp_path)
    await session.run(phones.call)
    phones.good.clear()
    assert set(await asyncio.gather(*(session.run(phones.call) for _ in range(10)))) == {"token-2"}
    assert phones.logins == 2


async def test_other_processes_use_the_kept_token(phones: Phones, tmp_path: Path) -> None:
    """A second process, or the next run, logs in only when the kept token is refused."""
    await phones.session(tmp_path).run(phones.call)
    assert await phones.session(tmp_path).run(phones.call) == "token-1"
    assert phones.logins == 1
    phones.good.clear()
    assert await phones.session(tmp_path).run(phones.call) == "token-2"
    assert phones.logins == 2


async def test_another_process_s_token_that_ran_out_too_is_no_refusal(phones: Phones, tmp_path: Path) -> None:
    """Own token old, kept token old as well: that calls for a login, not for giving up the source."""
    mine, other = phones.session(tmp_path), phones.session(tmp_path)
    await mine.run(phones.call)
    phones.good.clear()
    assert await other.run(phones.call) == "token-2"
    phones.good.clear()
    assert await mine.run(phones.call) == "token-3"
    assert phones.logins == 3


async def test_a_fresh_token_that_is_refused_stops_the_source(phones: Phones, tmp_path: Path) -> None:
    """One login is tried; when its token is refused as well, nothing more is, by any of the calls under way."""

    async def refused(_: str) -> str:
        await asyncio.sleep(0)
        raise SessionExpired("hq: status 401")

    session = phones.session(tmp_path)
    outcomes = await asyncio.gather(*(session.run(refused) for _ in range(10)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StopSource}
    assert "hq: status 401; a fresh login was refused as well" in str(outcomes[0])
    assert phones.logins == 1


async def test_other_errors_pass_through(phones: Phones, tmp_path: Path) -> None:
    """Only an expired session is dealt with here."""

    async def broken(_: str) -> str:
        raise Retry("reset")

    with pytest.raises(Retry, match="reset"):
        await phones.session(tmp_path).run(broken)


async def test_a_refused_login_is_remembered(phones: Phones, tmp_path: Path) -> None:
    """After a refusal nobody logs in for a quarter of an hour, so that the address is not locked; then once again."""
    phones.refuses = StopSource("hq: wrong password")
    with pytest.raises(StopSource, match=r"^hq: wrong password$"):
        await phones.session(tmp_path).run(phones.call)
    phones.clock.advance(REFUSED_FOR - 1)
    with pytest.raises(StopSource, match=r"wrong password \(not tried again for 1 s"):
        await phones.session(tmp_path).run(phones.call)
    assert phones.logins == 1
    phones.clock.advance(1)
    phones.refuses = None
    assert await phones.session(tmp_path).run(phones.call) == "token-2"


async def test_new_credentials_are_tried_at_once(phones: Phones, tmp_path: Path) -> None:
    """A refusal belongs to its credentials: corrected ones need not wait, nor is another's token used."""
    phones.refuses = StopSource("wrong password")
    with pytest.raises(StopSource):
        await phones.session(tmp_path, "api\nwrong").run(phones.call)
    phones.refuses = None
    assert await phones.session(tmp_path, "api\nright").run(phones.call) == "token-2"
    assert await phones.session(tmp_path, "other").run(phones.call) == "token-3"


async def test_a_login_that_fails_otherwise_is_not_remembered(phones: Phones, tmp_path: Path) -> None:
    """A phone system that is down has not refused anybody."""
    phones.refuses = Retry("down")
    with pytest.raises(Retry):
        await phones.session(tmp_path).run(phones.call)
    phones.refuses = None
    assert await phones.session(tmp_path).run(phones.call) == "token-2"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"token"', b'{"token": "x"}', b"\xff\xfe"])
async def test_a_spoilt_file_is_as_good_as_none(phones: Phones, tmp_path: Path, content: bytes) -> None:
    """Whatever is found in place of the kept token, a login makes it good."""
    (tmp_path / "hq.json").write_bytes(content)
    assert await phones.session(tmp_path).run(phones.call) == "token-1"
    assert json.loads((tmp_path / "hq.json").read_text())["token"] == "token-1"


async def test_the_file_is_for_this_user_alone_and_holds_no_password(phones: Phones, tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700; what one logs in with is there as a hash only."""
    folder = tmp_path / "state" / "sessions"
    await phones.session(folder, "api\nhunter2").run(phones.call)
    assert oct((folder / "hq.json").stat().st_mode & 0o777) == "0o600"
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert "hunter2" not in (folder / "hq.json").read_text()


async def test_one_process_logs_in_at_a_time(phones: Phones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes while another process is logging in waits for its token."""
    waits = asyncio.Event()
    flock = fcntl.flock

    def watched(file: Any, operation: int) -> None:
        try:
            flock(file, operation)
        except BlockingIOError:
            waits.set()
            raise

    file = TokenFile(tmp_path, "hq", "api")
    async with file.locked():
        monkeypatch.setattr(fcntl, "flock", watched)
        waiting = asyncio.create_task(phones.session(tmp_path).run(phones.call))
        await waits.wait()
        phones.good = {"theirs"}
        file.write(token="theirs")
    assert await waiting == "theirs"
    assert phones.logins == 0


async def test_a_login_page_that_stays_is_that_answers_trouble(phones: Phones, tmp_path: Path) -> None:
    """After one fresh login it is no recording, and the source goes on."""
    session = phones.session(tmp_path)

    async def page(_: str) -> str:
        raise LoginPage("hq: a login page came")

    with pytest.raises(NotAudio, match="after a fresh login too"):
        await session.run(page)
    assert phones.logins <= 2
    assert await session.run(phones.call)


async def test_a_folder_that_cannot_be_used_stops_the_source(phones: Phones, tmp_path: Path) -> None:
    """A token that could not be kept would be a login for every process: the message names the setting."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StopSource, match=r"file/sessions cannot be used \(.+\): set \[runtime\] state_dir"):
        await phones.session(tmp_path / "file" / "sessions").run(phones.call)
    assert phones.logins == 0


@pytest.mark.parametrize(("worn", "served"), [(1, True), (2, True), (3, False)])
async def test_a_fresh_token_that_others_used_up_is_renewed(
    phones: Phones, tmp_path: Path, worn: int, served: bool
) -> None:
    """A token that served others and then ran out under this call is no refusal, a few times in a row."""
    session = phones.session(tmp_path)
    left = worn + 1

    async def unlucky(token: str) -> str:
        nonlocal left
        if left:
            left -= 1
            assert await session.run(phones.call) == token  # another call is served by it
            phones.good.clear()
        return await phones.call(token)

    if served:
        assert await session.run(unlucky) == f"token-{worn + 2}"
    else:
        with pytest.raises(StopSource, match="a fresh login was refused as well"):
            await session.run(unlucky)
