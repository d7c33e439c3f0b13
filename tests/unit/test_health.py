"""The three questions of `callvault health`, to real servers and to none."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from config.settings import Settings
from storage.errors import StoreRefused
from storage.memory import MemoryStore
from storage.state_redis import RedisState
from tasks import health as module
from tasks.health import Check, health
from tasks.liveness import sing
from tests.support.clock import FakeClock
from tests.support.settings import NOBODY, settings
from tests.support.valkey import Valkey


@pytest.fixture
async def state(valkey: Valkey, clock: FakeClock) -> AsyncIterator[RedisState]:
    """Return the state of an installation that has just begun."""
    valkey.flush()
    state = RedisState(valkey.url, "test", clock)
    yield state
    await state.aclose()


@pytest.fixture
def told(tmp_path: Path, valkey: Valkey) -> Settings:
    """Return settings whose broker answers."""
    return settings(tmp_path, url=valkey.url)


def by_name(checks: list[Check]) -> dict[str, Check]:
    """Return the checks by what they asked."""
    return {check.name: check for check in checks}


async def test_all_is_well(told: Settings, state: RedisState, clock: FakeClock) -> None:
    """A broker that answers, a canary of a minute ago, a bucket that can be written."""
    await sing(state, clock)
    clock.advance(60)
    checks = by_name(await health(told, state, MemoryStore(clock=clock), clock))
    assert [check.ok for check in checks.values()] == [True, True, True], checks
    assert checks["canary"].detail == "a worker was at work 60 s ago"
    assert checks["bucket"].detail == "acme-calls can be written"


async def test_the_bucket_is_left_as_it_was(told: Settings, state: RedisState, clock: FakeClock) -> None:
    """What the check writes lies under v1/probe and is gone afterwards."""
    store = MemoryStore(clock=clock)
    await health(told, state, store, clock)
    assert [found.key async for found in store.objects("")] == []


async def test_a_stale_canary_is_unhealthy(told: Settings, state: RedisState, clock: FakeClock) -> None:
    """Workers that are connected but consume nothing are found out after three minutes."""
    checks = by_name(await health(told, state, MemoryStore(clock=clock), clock))
    assert not checks["canary"].ok
    assert "no worker was seen at work yet" in checks["canary"].detail
    await sing(state, clock)
    clock.advance(timedelta(minutes=3, seconds=1).total_seconds())
    checks = by_name(await health(told, state, MemoryStore(clock=clock), clock))
    assert not checks["canary"].ok
    assert "no worker was at work for 181 s" in checks["canary"].detail


@pytest.mark.parametrize("url", [NOBODY, "amqp://user:hush@127.0.0.1:1//"])
async def test_a_broker_that_is_away_is_unhealthy(
    tmp_path: Path, state: RedisState, clock: FakeClock, url: str
) -> None:
    """The message names host and port, and never the password; the other questions are answered all the same."""
    await sing(state, clock)
    away = settings(tmp_path, url=url, state_url=NOBODY)
    checks = by_name(await health(away, state, MemoryStore(clock=clock), clock))
    assert not checks["broker"].ok
    assert "127.0.0.1:1 does not answer" in checks["broker"].detail
    assert "hush" not in checks["broker"].detail
    assert checks["canary"].ok
    assert checks["bucket"].ok


async def test_a_broker_that_may_drop_work_is_remarked_on(
    told: Settings, valkey: Valkey, state: RedisState, clock: FakeClock
) -> None:
    """An eviction policy loses queued work without any error: the check says so."""
    with valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            checks = by_name(await health(told, state, MemoryStore(clock=clock), clock))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert checks["broker"].ok
    assert "its maxmemory-policy is allkeys-lru" in checks["broker"].detail


async def test_a_broker_that_may_not_be_asked_is_well(
    tmp_path: Path, valkey: Valkey, state: RedisState, clock: FakeClock
) -> None:
    """A user without the right to INFO is no reason for alarm."""
    url = valkey.url.replace("://", "://careful:hush@")
    with valkey.client() as client:
        client.acl_setuser(
            "careful", enabled=True, passwords=["+hush"], categories=["+@all"], commands=["-info"], keys="*"
        )
        try:
            checks = by_name(await health(settings(tmp_path, url=url), state, MemoryStore(clock=clock), clock))
        finally:
            client.acl_deluser("careful")
    assert checks["broker"].ok, checks["broker"].detail
    assert checks["broker"].detail.endswith("answers")


class Refusing(MemoryStore):
    async def try_write(self, prefix: str) -> None:
        raise StoreRefused("bucket acme-calls: AccessDenied: give the user s3:PutObject")


class Hanging(MemoryStore):
    async def try_write(self, prefix: str) -> None:
        await asyncio.Event().wait()


async def test_a_bucket_that_refuses_is_unhealthy(told: Settings, state: RedisState, clock: FakeClock) -> None:
    """The store's own words say what to do."""
    checks = by_name(await health(told, state, Refusing(clock=clock), clock))
    assert checks["bucket"] == Check(
        "bucket", ok=False, detail="bucket acme-calls: AccessDenied: give the user s3:PutObject"
    )


async def test_an_answer_always_comes(
    told: Settings, state: RedisState, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs is an answer too."""
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    checks = by_name(await health(told, state, Hanging(clock=clock), clock))
    assert checks["bucket"] == Check("bucket", ok=False, detail="no answer within 0 s")


async def test_rabbitmq_is_asked_no_questions_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the broker is no Redis, answering is all that is asked of it."""
    from kombu import Connection

    assert module._connect(Connection("memory://")) == ""
