"""State in a real Valkey: the contract, and what lapses, what is shared, what a flush leaves.

Errors and kinds of servers are `test_redis_server.py`. Nothing waits for time to pass: what would lapse is
made to have lapsed, with a raw client behind the state's back.
"""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from storage.state import PERMIT_LIFE, Pause, State, StateUnavailable
from storage.state_redis import RedisState
from tests.contract.state_contract import DAY, StateContract, attempt, everything
from tests.support.clock import FakeClock
from tests.support.valkey import Valkey

P = "callvault:acme:"
OpenState = Callable[..., RedisState]


@pytest.fixture
def state(raw: redis.Redis, open_state: OpenState) -> RedisState:
    """Return the state as one machine sees it, on an empty server."""
    return open_state()


@pytest.fixture
def other(raw: redis.Redis, open_state: OpenState) -> RedisState:
    """Return the state as another machine sees it."""
    return open_state()


class TestRedisState(StateContract):
    @pytest.fixture
    def state(self, raw: redis.Redis, open_state: OpenState) -> State:
        return open_state()


# What lapses


async def test_every_key_is_in_the_namespace_and_what_should_lapse_does(
    state: RedisState, raw: redis.Redis, clock: FakeClock
) -> None:
    """All keys begin with the namespace; all but watermarks and notes are the server's to remove, in good time."""
    await everything(state, clock)
    left = {key: raw.pttl(key) / 1000 for key in raw.scan_iter()}
    expected = {
        "lease:poll:hq": 30,
        "fence:poll:hq": 7 * 86400,
        "claim:hq:a": 30,
        "permits:hq": PERMIT_LIFE,
        "permits-since": None,
        "pace:hq": 0.2,
        "pause:hq": 60,
        f"held:hq:{DAY}": 86400,
        "attempts:hq": 30 * 86400,
        "stash:batch": 60,
        "queued:hq": 60,
        "watermark:hq": None,
        "note:poll": None,
    }
    left.setdefault(f"{P}pace:hq", 0.1)  # gone after 0.2 s, so maybe before the look
    assert sorted(left) == sorted(P + name for name in expected)
    for name, seconds in expected.items():
        if seconds is None:
            assert left[P + name] < 0
        else:
            assert 0 < left[P + name] <= seconds
            assert left[P + name] > seconds - min(20, seconds * 0.9)


async def test_archives_do_not_share_anything(open_state: OpenState, raw: redis.Redis, clock: FakeClock) -> None:
    """Another bucket's state on the same server is empty, and its leases are its own."""
    await everything(open_state(), clock)
    other = open_state(namespace="other")
    assert await other.lease("poll:hq", 30) is not None
    assert await other.watermark("hq") is None
    assert await other.held("hq", DAY) is None
    assert await other.attempts("hq") == {}
    assert await other.noted("poll") == {}


async def test_a_lapsed_lease_goes_to_the_next_and_stays_lost(
    state: RedisState, other: RedisState, raw: redis.Redis
) -> None:
    """Who stopped renewing has lost the lease: to nobody or to another, and cannot end the other's."""
    lost = await state.lease("poll:hq", 30)
    assert lost is not None
    raw.delete(f"{P}lease:poll:hq")
    assert not await lost.renew()
    following = await other.lease("poll:hq", 30)
    assert following is not None
    assert following.fence > lost.fence
    assert not await lost.renew()
    await lost.release()
    assert await following.renew()


async def test_renewing_extends_a_lease(state: RedisState, raw: redis.Redis) -> None:
    """A renewal gives the lease its whole time again."""
    lease = await state.lease("poll:hq", 30)
    assert lease is not None
    raw.pexpire(f"{P}lease:poll:hq", 5000)
    assert await lease.renew()
    assert raw.pttl(f"{P}lease:poll:hq") > 5000


@pytest.mark.parametrize("loss", ["flush", "fence only", "far ahead"])
async def test_a_fence_grows_over_a_flush(state: RedisState, raw: redis.Redis, loss: str) -> None:
    """The next fence does not start over though the counter was lost, or has run ahead of the server's clock."""
    first = await state.lease("poll:hq", 30)
    assert first is not None
    least = first.fence
    if loss == "flush":
        raw.flushall()
    elif loss == "fence only":
        raw.delete(f"{P}lease:poll:hq", f"{P}fence:poll:hq")
    else:
        least += 10**9
        raw.delete(f"{P}lease:poll:hq")
        raw.set(f"{P}fence:poll:hq", least)
    seconds, micros = raw.time()
    second = await state.lease("poll:hq", 30)
    assert second is not None
    # in the same millisecond as the first, a counter that was lost gives the same number again
    assert second.fence >= max(least, seconds * 1000 + micros // 1000)
    if loss == "far ahead":
        assert second.fence == least + 1


async def test_a_lapsed_permit_makes_room(state: RedisState, raw: redis.Redis) -> None:
    """A permit that was not renewed in time no longer counts, and renewing it later does not bring it back."""
    lost = await state.acquire("hq", 1)
    assert await state.acquire("hq", 1) is None
    raw.zadd(f"{P}permits:hq", {lost: 1})
    taken = await state.acquire("hq", 1)
    assert taken is not None
    assert await state.renew("hq", [lost or "", taken]) == {lost}
    assert raw.zrange(f"{P}permits:hq", 0, -1) == [taken]


async def test_renewing_extends_a_permit(state: RedisState, raw: redis.Redis) -> None:
    """A renewal gives the permit its whole life again."""
    token = await state.acquire("hq", 1)
    seconds, _ = raw.time()
    raw.zadd(f"{P}permits:hq", {token: (seconds + 1) * 1000})
    raw.pexpire(f"{P}permits:hq", 1000)
    assert await state.renew("hq", [token or ""]) == frozenset()
    assert raw.zscore(f"{P}permits:hq", token) >= (seconds + PERMIT_LIFE) * 1000
    assert raw.pttl(f"{P}permits:hq") > 1000


# What is known of permits after a loss


def long_ago(raw: redis.Redis) -> None:
    """Have the state lost what it knew so long ago that all who hold permits have told it, or have stopped."""
    (run, since), *_ = raw.hgetall(f"{P}permits-since").items()
    raw.hset(f"{P}permits-since", run, int(since) - round(PERMIT_LIFE * 1000))


@pytest.mark.parametrize("loss", ["flush", "restart", "restart with its data", "restart with older data"])
async def test_after_a_loss_no_permit_is_granted_until_all_are_known_again(
    open_state: OpenState, tmp_path: Path, loss: str
) -> None:
    """For a permit's life nothing is granted while holders tell of theirs; then as many as are left, and no more."""
    with Valkey(tmp_path / "valkey") as server, server.client() as raw:
        first, second = (open_state(server.url, grace=PERMIT_LIFE) for _ in range(2))
        await first.nobody_in_flight()
        if loss == "restart with older data":
            raw.save()
        held = [await first.acquire("hq", 3), await second.acquire("hq", 3)]
        assert None not in held
        if loss == "flush":
            server.flush()
        else:
            if loss == "restart with its data":
                raw.save()
            server.kill()
            if loss == "restart":
                (server.folder / "dump.rdb").unlink(missing_ok=True)
            server.start()
        assert await second.acquire("hq", 3) is None
        assert await first.renew("hq", [held[0] or ""]) == frozenset()
        assert await second.renew("hq", [held[1] or ""]) == frozenset()
        assert await first.acquire("hq", 3) is None
        assert await first.acquire("other", 3) is None
        long_ago(raw)
        assert await second.acquire("hq", 3) is not None
        assert await first.acquire("hq", 3) is None
        assert await first.renew("hq", [held[0] or "", "lapsed before"]) == {"lapsed before"}


async def test_a_renewal_notices_a_loss_as_well(open_state: OpenState, raw: redis.Redis) -> None:
    """The time of waiting begins with the first question of any kind after the loss; later ones do not move it."""
    state = open_state(grace=PERMIT_LIFE)
    assert await state.renew("hq", ["held"]) == frozenset()
    noticed = raw.hgetall(f"{P}permits-since")
    assert await state.acquire("hq", 2) is None
    assert await state.renew("hq", ["held"]) == frozenset()
    assert raw.hgetall(f"{P}permits-since") == noticed
    long_ago(raw)
    assert await state.acquire("hq", 2) is not None
    assert await state.acquire("hq", 2) is None


async def test_who_knows_that_nobody_is_in_flight_need_not_wait(open_state: OpenState, raw: redis.Redis) -> None:
    """A server that has only just been started for this archive grants permits at once."""
    state = open_state(grace=PERMIT_LIFE)
    await state.nobody_in_flight()
    assert await state.acquire("hq", 1) is not None
    assert await state.acquire("hq", 1) is None


async def test_a_clock_set_back_costs_no_more_than_a_loss(open_state: OpenState, raw: redis.Redis) -> None:
    """Where the server's clock was set back by a year, permits are granted a permit's life later, not a year."""
    state = open_state(grace=PERMIT_LIFE)
    assert await state.acquire("hq", 1) is None
    ((run, since),) = raw.hgetall(f"{P}permits-since").items()
    raw.hset(f"{P}permits-since", run, int(since) + 365 * 86_400_000)
    assert await state.acquire("hq", 1) is None
    long_ago(raw)
    assert await state.acquire("hq", 1) is not None


async def test_a_server_that_does_not_tell_of_itself_counts_permits_all_the_same(
    open_state: OpenState, raw: redis.Redis, valkey: Valkey
) -> None:
    """Where INFO is forbidden a flush is noticed, permits are granted and renewed."""
    raw.acl_setuser("careful", enabled=True, passwords=["+hush"], keys=["*"], categories=["+@all"], commands=["-info"])
    state = open_state(valkey.url.replace("://", "://careful:hush@"), grace=PERMIT_LIFE)
    assert await state.acquire("hq", 1) is None
    long_ago(raw)
    token = await state.acquire("hq", 1)
    assert token is not None
    assert await state.acquire("hq", 1) is None
    assert await state.renew("hq", [token]) == frozenset()
    raw.flushall()
    assert await state.acquire("hq", 1) is None
    assert await state.renew("hq", [token]) == frozenset()
    long_ago(raw)
    assert await state.acquire("hq", 1) is None
    raw.acl_deluser("careful")


async def test_never_more_permits_than_the_limit_on_two_machines(state: RedisState, other: RedisState) -> None:
    """Fifty coroutines on two machines never hold more than the limit at once, and all get their turn."""
    out = most = served = 0

    async def one(mine: RedisState) -> None:
        nonlocal out, most, served
        while (token := await mine.acquire("hq", 3)) is None:  # noqa: ASYNC110 - nobody tells when one is free
            await asyncio.sleep(0)
        out += 1
        most = max(most, out)
        await asyncio.sleep(0)
        out -= 1
        served += 1
        await mine.release("hq", token)

    await asyncio.gather(*(one(mine) for mine in (state, other) for _ in range(25)))
    assert (served, most) == (50, 3)


async def test_a_request_repeated_after_a_lost_answer_takes_one_permit(
    state: RedisState, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client repeats a request whose answer was lost: the same token counts once, for permits and for leases."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "same")
    assert await state.acquire("hq", 1) == await state.acquire("hq", 1) == "same"
    first, second = await state.lease("poll:hq", 30), await state.lease("poll:hq", 30)
    assert first is not None
    assert second is not None
    assert second.fence > first.fence


async def test_a_pace_holds_on_two_machines(state: RedisState, other: RedisState) -> None:
    """Two machines that ask at once are told places one interval apart."""
    waits = sorted(await asyncio.gather(*(mine.reserve("hq", 0.01) for mine in (state, other) for _ in range(3))))
    for number, wait in enumerate(waits):
        assert 100 * number - 10 <= wait <= 100 * number


async def test_a_passed_place_in_the_pace_is_not_waited_for(state: RedisState, raw: redis.Redis) -> None:
    """A place that lies in the past, and has not been removed yet, costs nothing; the next is exact."""
    raw.set(f"{P}pace:hq", 1)
    assert await state.reserve("hq", 5) == 0
    assert re.fullmatch(r"\d{16}", str(raw.get(f"{P}pace:hq")))


async def test_a_mark_lapses(state: RedisState, raw: redis.Redis) -> None:
    """A recording whose mark has lapsed is enqueued again and no longer counted; a longer mark outlives a shorter."""
    await state.enqueue("hq", ["a", "b"], 600)
    raw.zadd(f"{P}queued:hq", {"a": 1})
    assert await state.enqueued("hq") == 1
    assert await state.enqueue("hq", ["a", "b"], 60) == ["a"]
    assert raw.pttl(f"{P}queued:hq") > 60_000


async def test_a_remembered_day_is_read_again_after_a_day(state: RedisState, raw: redis.Redis) -> None:
    """Adding to a remembered day does not make it last longer."""
    await state.remember_held("hq", DAY, [])
    raw.pexpire(f"{P}held:hq:{DAY}", 5000)
    await state.add_held("hq", DAY, ["a"])
    assert 0 < raw.pttl(f"{P}held:hq:{DAY}") <= 5000


async def test_saving_an_attempt_keeps_them_all_for_longer(state: RedisState, raw: redis.Redis) -> None:
    """The thirty days of a source's attempts begin again with each that is saved."""
    await state.save_attempt("hq", "a", attempt())
    raw.pexpire(f"{P}attempts:hq", 5000)
    await state.save_attempt("hq", "b", attempt())
    assert raw.pttl(f"{P}attempts:hq") > 5000


# What is shared


async def test_all_machines_see_the_same(state: RedisState, other: RedisState, clock: FakeClock) -> None:
    """What one machine writes, another reads: watermark, held days, attempts, texts, pauses, notes, marks."""
    until = clock.now() + timedelta(seconds=60)
    await everything(state, clock)
    assert await other.watermark("hq") == clock.now()
    assert await other.held("hq", DAY) == {"a", "b"}
    assert await other.attempts("hq") == {"a": attempt()}
    assert await other.unstash("batch") == "body"
    assert await other.paused("hq") == Pause(until, "429")
    assert await other.noted("poll") == {"listed": "1"}
    assert await other.enqueue("hq", ["a", "b"], 60) == ["a"]
    assert await other.lease("poll:hq", 30) is None
    assert await other.claim("hq:a", 30) is None


async def test_a_watermark_is_read_back_to_the_microsecond(state: RedisState, clock: FakeClock) -> None:
    """What was accepted is what is told, and what was refused left no trace."""
    value = clock.now() + timedelta(microseconds=1)
    await state.set_watermark("hq", value, 5)
    await state.set_watermark("hq", value + timedelta(days=1), 4)
    assert await state.watermark("hq") == value
    assert await state.set_watermark("hq", value, 5)


async def test_only_one_machine_moves_a_watermark_after_losing_its_lease(
    state: RedisState, other: RedisState, raw: redis.Redis, clock: FakeClock
) -> None:
    """A poll that lost its lease and wakes up later cannot move the watermark of the one that followed."""
    slow = await state.lease("poll:hq", 30)
    assert slow is not None
    raw.delete(f"{P}lease:poll:hq")
    seconds, _ = raw.time()
    raw.set(f"{P}fence:poll:hq", seconds * 1000 + 5000)  # the clock's millisecond may be the same
    following = await other.lease("poll:hq", 30)
    assert following is not None
    assert await other.set_watermark("hq", clock.now(), following.fence)
    assert not await state.set_watermark("hq", clock.now() + timedelta(hours=1), slow.fence)
    assert await state.watermark("hq") == clock.now()


async def test_text_that_is_no_attempt_is_none(state: RedisState, raw: redis.Redis) -> None:
    """A record that cannot be read, such as a newer version's, counts as absent."""
    for number, text in enumerate(("", "{", "null", "[1]", '{"tries": 1}')):
        raw.hset(f"{P}attempts:hq", str(number), text)
    await state.save_attempt("hq", "good", attempt())
    assert await state.attempts("hq") == {"good": attempt()}
    assert await state.attempt("hq", "1") is None


# Losing everything


async def test_a_flush_at_any_point_raises_nothing(state: RedisState, raw: redis.Redis, clock: FakeClock) -> None:
    """Whatever was under way when all was lost goes on: leases are lost, records absent, nothing raises."""
    lease = await state.lease("poll:hq", 30)
    assert lease is not None
    token = await state.acquire("hq", 1)
    await everything(state, clock)
    raw.flushall()
    assert not await lease.renew()
    await lease.release()
    await state.renew("hq", [token or ""])
    await state.release("hq", token or "")
    assert await state.paused("hq") is None
    await state.unpause("hq")
    assert await state.watermark("hq") is None
    assert await state.held("hq", DAY) is None
    await state.add_held("hq", DAY, ["a"])
    assert await state.attempts("hq") == {}
    assert await state.attempt("hq", "a") is None
    await state.forget_attempt("hq", "a")
    assert await state.unstash("batch") is None
    await state.drop("batch")
    await state.dequeue("hq", ["a"])
    assert await state.enqueued("hq") == 0
    assert await state.noted("poll") == {}
    assert list(raw.scan_iter()) == [f"{P}permits-since"]
    await everything(state, clock)
    assert await state.watermark("hq") == clock.now()


async def test_a_flush_between_any_two_steps_raises_nothing(
    state: RedisState, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """With everything, scripts included, lost before each single request, every method still returns."""
    server = state._server
    for name in ("run", "call"):
        inner = getattr(server, name)

        def flushed(*args: Any, inner: Any = inner) -> Any:
            valkey.flush()
            return inner(*args)

        monkeypatch.setattr(server, name, flushed)
    await everything(state, clock)
    assert await state.watermark("hq") is None


async def test_scripts_are_sent_again_when_the_server_forgot_them(state: RedisState, raw: redis.Redis) -> None:
    """After SCRIPT FLUSH, or on a server that took over, every script still runs."""
    assert await state.acquire("hq", 4)
    raw.script_flush()
    assert await state.acquire("hq", 4)
    assert raw.zcard(f"{P}permits:hq") == 2


async def test_one_round_trip_an_operation(state: RedisState, raw: redis.Redis, clock: FakeClock) -> None:
    """Once the scripts are known, each of the 22 calls that `everything` makes is a single command."""
    await everything(state, clock)
    with raw.monitor() as seen:
        await everything(state, clock)  # lease and claim are taken, so that they are not renewed
        raw.echo("the end")
        commands = []
        while "the end" not in (command := seen.next_command())["command"]:
            commands += [command["command"].split()[0]] if command["client_type"] != "lua" else []
    commands = [command for command in commands if command != "CLIENT"]  # the raw client introduces itself
    assert len(commands) == 22
    assert set(commands) <= {"EVALSHA", "HMGET", "HGET", "SMEMBERS", "HGETALL", "SET", "GET", "ZREM"}


async def test_a_restart_without_data_is_a_flush(open_state: OpenState, tmp_path: Path, clock: FakeClock) -> None:
    """The client connects again by itself; with its data saved the server knows all, without them nothing."""
    with Valkey(tmp_path / "valkey") as server:
        state = open_state(server.url)
        await everything(state, clock)
        server.restart(keep_data=True)
        assert await state.watermark("hq") == clock.now()
        server.restart(keep_data=False)
        assert await state.watermark("hq") is None
        await everything(state, clock)
        server.stop()
        with pytest.raises(StateUnavailable):
            await state.ping()
