"""What is asked of the servers at start, and what follows from each answer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from config.events import Event
from config.retention import LockMode, Period, Retention
from config.settings import Settings
from storage.s3 import transport
from tasks import fitness
from tests.support.s3 import archive_at, moto, new_bucket
from tests.support.settings import NOBODY, settings
from tests.support.valkey import Valkey


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Event, str]]:
    """Return what is logged as warnings."""
    said: list[tuple[Event, str]] = []
    monkeypatch.setattr(fitness.log, "warning", lambda event, detail: said.append((event, detail)))
    return said


@pytest.fixture
def configure(valkey: Valkey) -> Iterator[Callable[..., None]]:
    """Return a function that sets the server up; afterwards it is as it was."""
    with valkey.client() as client:

        def set_up(limit: str, policy: str) -> None:
            client.config_set("maxmemory", limit)
            client.config_set("maxmemory-policy", policy)

        yield set_up
        set_up("0", "noeviction")


def test_a_good_server_is_passed_over_in_silence(tmp_path: Path, valkey: Valkey, logged: list[Any]) -> None:
    """Nothing is said and nothing ends."""
    fitness.end_if_unfit(settings(tmp_path, url=valkey.url))
    assert logged == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_one_that_evicts_ends_the_process(
    tmp_path: Path, valkey: Valkey, configure: Callable[..., None], capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    """With 2 and a sentence; `volatile-*` too, for leases and permits have an end of their own."""
    configure("100mb", policy)
    with pytest.raises(SystemExit) as caught:
        fitness.end_if_unfit(settings(tmp_path, url="amqp://h//", state_url=valkey.url))
    assert caught.value.code == 2
    assert f"(maxmemory-policy is {policy}): set `maxmemory-policy noeviction`" in capsys.readouterr().err


def test_what_is_only_doubtful_is_logged(
    tmp_path: Path, valkey: Valkey, configure: Callable[..., None], logged: list[tuple[Event, str]]
) -> None:
    """Without a limit of memory nothing is evicted, so work goes on."""
    configure("0", "allkeys-lru")
    fitness.end_if_unfit(settings(tmp_path, url=valkey.url))
    ((event, detail),) = logged
    assert event is Event.BROKER_DOUBTFUL
    assert "has no maxmemory" in detail


def test_one_that_does_not_know_info_is_only_doubtful(tmp_path: Path, logged: list[tuple[Event, str]]) -> None:
    """Renaming it is a usual way of hardening; what it would have told cannot be checked then."""
    with Valkey(tmp_path, lines=['rename-command INFO ""']) as server:
        fitness.end_if_unfit(settings(tmp_path, url=server.url))
    ((event, detail),) = logged
    assert event is Event.BROKER_DOUBTFUL
    assert "does not answer INFO" in detail


@pytest.mark.parametrize("url", [NOBODY, "amqp://user:hush@127.0.0.1:1//"])
def test_one_that_cannot_be_reached_is_waited_for(
    tmp_path: Path, valkey: Valkey, logged: list[tuple[Event, str]], url: str
) -> None:
    """A worker may start before its broker; the sentence holds no password."""
    fitness.end_if_unfit(settings(tmp_path, url=url, state_url=valkey.url))
    ((event, detail),) = logged
    assert event is Event.BROKER_UNREACHABLE
    assert "127.0.0.1:1 does not answer" in detail
    assert "hush" not in detail


def test_rabbitmq_is_only_asked_whether_it_answers(
    tmp_path: Path, valkey: Valkey, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the broker is no Redis, answering is all that is asked of it."""
    monkeypatch.setattr(fitness, "brief_connection", lambda _: Connection("memory://"))
    fitness.end_if_unfit(settings(tmp_path, url="amqp://h//", state_url=valkey.url))
    assert logged == []


LOCKING = Retention(LockMode.GOVERNANCE, default=Period(months=84))


def with_bucket(folder: Path, url: str, retention: Retention, **kind: bool) -> Settings:
    """Return settings with a bucket of this kind."""
    return settings(folder).model_copy(update={"archive": new_bucket(url, **kind), "retention": retention})


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """One moto for the tests below."""
    with moto() as url:
        yield url


def test_a_bucket_that_cannot_lock_ends_the_process(
    tmp_path: Path, moto_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 2, since nothing helps but another configuration, and the sentence that says how to make one that can."""
    with pytest.raises(SystemExit) as caught:
        fitness.end_if_unlockable(with_bucket(tmp_path, moto_url, LOCKING, versioned=True))
    assert caught.value.code == 2
    assert "--object-lock-enabled-for-bucket" in capsys.readouterr().err


def test_a_bucket_that_can_lock_is_passed_over_in_silence(tmp_path: Path, moto_url: str, logged: list[Any]) -> None:
    """Nothing is said and nothing ends."""
    fitness.end_if_unlockable(with_bucket(tmp_path, moto_url, LOCKING, object_lock=True))
    assert logged == []


def test_without_a_mode_the_bucket_is_not_asked(tmp_path: Path, logged: list[Any]) -> None:
    """Whatever it is: nobody listens at this one."""
    fitness.end_if_unlockable(settings(tmp_path))
    assert logged == []


def test_a_bucket_that_cannot_be_asked_is_waited_for(
    tmp_path: Path, logged: list[tuple[Event, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may start before its bucket can be reached: what it writes is refused then, if need be."""
    monkeypatch.setattr(transport, "_BACKOFF", 0.001)
    told = {"archive": archive_at("http://127.0.0.1:1", "calls"), "retention": LOCKING}
    fitness.end_if_unlockable(settings(tmp_path).model_copy(update=told))
    ((event, detail),) = logged
    assert event is Event.STORE_FAILED
    assert "no connection could be made" in detail
