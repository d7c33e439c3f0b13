"""The four questions of `callvault health`, to real servers and to none."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery

from config.settings import Settings
from storage.errors import StoreRefused
from storage.memory import MemoryStore
from storage.state_redis import RedisState
from tasks import calling
from tasks import health as module
from tasks.health import Check, health
from tasks.liveness import answer, sing
from tasks.roster import Place, Worker, enrol
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
    assert list(checks) == ["broker", "canary", "worker", "bucket"]
    assert all(check.ok for check in checks.values()), checks
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


async def test_a_broker_that_may_drop_work_is_unhealthy(
    told: Settings, valkey: Valkey, state: RedisState, clock: FakeClock
) -> None:
    """An eviction policy loses queued work without any error: whoever turned it on is told."""
    with valkey.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            checks = by_name(await health(told, state, MemoryStore(clock=clock), clock))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 0)
    assert not checks["broker"].ok
    assert "(maxmemory-policy is allkeys-lru): set `maxmemory-policy noeviction`" in checks["broker"].detail


async def test_a_broker_that_may_not_be_asked_is_well(
    tmp_path: Path, valkey: Valkey, state: RedisState, clock: FakeClock
) -> None:
    """A user without the right to INFO is no reason for alarm; that nothing could be checked is said."""
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
    assert checks["broker"].detail.startswith("answers; ")
    assert checks["broker"].detail.endswith("could not be checked")


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
    assert checks["bucket"] == Check("bucket", ok=False, detail="no answer within 13 s")


@pytest.fixture
def place(told: Settings, clock: FakeClock) -> Iterator[Place]:
    """Put a worker on this machine's roster; it does only what the test does in its place."""
    place = enrol(told, "w@here", clock.now())
    yield place
    place.leave()


async def worker_check(told: Settings, state: RedisState, clock: FakeClock) -> Check:
    """Return what is said of this machine's workers, after a call that is answered soon or never."""
    return by_name(await health(told, state, MemoryStore(clock=clock), clock))["worker"]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "PATIENCE", 1.0)


@pytest.mark.usefixtures("_impatient")
async def test_a_worker_is_given_time_to_start_and_then_must_be_at_work(
    told: Settings, state: RedisState, clock: FakeClock, place: Place
) -> None:
    """Each sign of life is good for three minutes, the start is the first; the installation's canary does not count."""
    clock.advance(180)
    assert await worker_check(told, state, clock) == Check("worker", ok=True, detail="w@here started 180 s ago")
    await answer(state, clock, place.worker.id)
    clock.advance(180)
    assert await worker_check(told, state, clock) == Check("worker", ok=True, detail="w@here was at work 180 s ago")
    clock.advance(1)
    await sing(state, clock)
    check = await worker_check(told, state, clock)
    assert check == Check("worker", ok=False, detail="w@here runs and has taken no message for 181 s: start it anew")


async def test_a_worker_that_answers_at_once_is_well(
    told: Settings, state: RedisState, clock: FakeClock, place: Place
) -> None:
    """However long nobody had asked it, and whatever the clocks of the two say."""
    clock.advance(3600)
    asking = asyncio.create_task(worker_check(told, state, clock))
    for number in itertools.count():
        if asking.done():
            break
        await answer(state, FakeClock(), place.worker.id, str(number))  # the question may not have been put yet
        await asyncio.sleep(0.01)
    assert await asking == Check("worker", ok=True, detail="w@here answered at once")


async def test_a_worker_that_has_lost_queues_is_unhealthy(
    told: Settings, state: RedisState, clock: FakeClock, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, and does not do all of its work."""
    monkeypatch.setattr(calling, "PATIENCE", 0.1)
    await answer(state, clock, place.worker.id, "call", ["poll", "archive"])
    check = await worker_check(told, state, clock)
    assert check == Check("worker", ok=False, detail="w@here runs and takes nothing from archive, poll: start it anew")


@pytest.mark.parametrize("away", ["url", "state_url"])
async def test_a_worker_is_not_blamed_for_its_servers(
    told: Settings, valkey: Valkey, clock: FakeClock, place: Place, tmp_path: Path, away: str
) -> None:
    """With broker or state away it may well be silent; restarting it would help nobody, and the other rows say it."""
    clock.advance(3600)
    halves = settings(tmp_path, **{"url": valkey.url, "state_url": valkey.url, away: NOBODY})  # type: ignore[arg-type]
    state = RedisState(NOBODY if away == "state_url" else valkey.url, "test", clock)
    checks = by_name(await health(halves, state, MemoryStore(clock=clock), clock))
    await state.aclose()
    assert checks["worker"].ok
    assert "w@here runs; whether it works cannot be told now (" in checks["worker"].detail
    assert not checks["broker" if away == "url" else "canary"].ok
    assert "hush" not in str(checks)


async def test_a_broker_lost_in_the_middle_is_no_fault_of_the_worker(
    told: Settings, state: RedisState, clock: FakeClock, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call may not have arrived."""

    def cut(*_: object) -> None:
        raise ConnectionResetError("cut")

    monkeypatch.setattr(calling, "_replace", cut)
    clock.advance(3600)
    check = await worker_check(told, state, clock)
    assert check == Check("worker", ok=True, detail="w@here runs; whether it works cannot be told now (cut)")


async def test_servers_that_hang_do_not_hold_the_answer_up(
    told: Settings, valkey: Valkey, state: RedisState, clock: FakeClock, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes connections and says nothing is given up by every question, and no worker is blamed."""
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    clock.advance(3600)
    valkey.freeze()
    try:
        checks = by_name(await health(told, state, MemoryStore(clock=clock), clock))
    finally:
        valkey.thaw()
    assert {name: check.ok for name, check in checks.items()} == {
        "broker": False, "canary": False, "worker": True, "bucket": True,
    }  # fmt: skip


async def test_a_roster_that_may_not_be_read_is_said(
    told: Settings, state: RedisState, clock: FakeClock, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's health check cannot speak for the workers, and must not say that there are none."""

    def denied(_: Settings) -> None:
        raise PermissionError(13, "Permission denied", "/var/lib/callvault/workers")

    monkeypatch.setattr(module, "at_work", denied)
    check = await worker_check(told, state, clock)
    assert not check.ok
    assert "cannot read /var/lib/callvault/workers (Permission denied)" in check.detail


async def test_calls_that_nobody_takes_do_not_pile_up(
    told: Settings, valkey: Valkey, state: RedisState, clock: FakeClock, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One waits, and lapses; it is small and holds no more than its own number."""
    monkeypatch.setattr(calling, "PATIENCE", 0.01)
    clock.advance(3600)
    for _ in range(3):
        await worker_check(told, state, clock)
    with valkey.client() as asked:
        (waiting,) = asked.lrange(f"callvault:{told.archive.namespace}:worker.{place.worker.id}", 0, -1)
    message = json.loads(waiting)
    assert message["headers"]["task"] == "callvault.rollcall"
    assert message["headers"]["expires"]
    assert len(waiting) < 2048


async def test_a_queue_that_rabbitmq_does_not_have_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that listens to nothing has no queue there, and a message to none would vanish unseen."""
    sent: list[str] = []

    class Gone(Exception):
        pass

    class Link:
        channel_errors = (Gone,)

        def channel(self) -> None:
            raise Gone

    app = Celery("test", set_as_current=False)
    monkeypatch.setattr(app, "send_task", lambda name, *_, **__: sent.append(name))
    worker = Worker("0123456789abcdef", "w@here", 1, FakeClock().now())
    calling._replace(app, Link(), settings(Path(), url="amqp://h//", state_url=NOBODY), worker)  # type: ignore[arg-type]
    assert sent == []
