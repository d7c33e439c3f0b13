"""What every implementation of `storage.state.State` promises; a subclass says which one, by its `state` fixture.

Behaviour that concerns other processes and lapsing is in `test_redis_state.py` and `test_local_state.py`.
"""

import asyncio
from datetime import UTC, date, datetime, timedelta

from storage.state import Attempt, Pause, State
from tests.support.clock import FakeClock

DAY = date(2026, 3, 5)
HOSTILE = (
    "",
    " ",
    "a/b:c*?[x]\\",
    'quo"te\r\nnew',
    "Grüße 電話 📞",
    "\x00\x01",
    "half \ud83d",
    "x" * 2000,
    "../../etc",
)


def attempt(tries: int = 1, error: str = "the source answered 503", crashes: int = 0) -> Attempt:
    """Return an attempt with times down to the microsecond."""
    return Attempt(
        first_try_at=datetime(2026, 3, 5, 11, 0, 0, 123456, tzinfo=UTC),
        tries=tries,
        not_before=datetime(2026, 3, 5, 12, 30, 0, 1, tzinfo=UTC),
        error=error,
        crashes=crashes,
    )


async def everything(state: State, clock: FakeClock) -> None:
    """Use every method once."""
    now = clock.now()
    lease = await state.lease("poll:hq", 30)
    if lease:
        await lease.renew()
    claim = await state.claim("hq:a", 30)
    if claim:
        await claim.renew()
    token = await state.acquire("hq", 4)
    await state.renew("hq", [token or ""])
    await state.reserve("hq", 5)
    await state.pause("hq", now + timedelta(seconds=60), "429")
    await state.paused("hq")
    await state.set_watermark("hq", now, 1)
    await state.watermark("hq")
    await state.remember_held("hq", DAY, ["a"])
    await state.add_held("hq", DAY, ["b"])
    await state.held("hq", DAY)
    await state.save_attempt("hq", "a", attempt())
    await state.attempt("hq", "a")
    await state.attempts("hq")
    await state.stash("batch", "body", 60)
    await state.unstash("batch")
    await state.enqueue("hq", ["a", "b"], 60)
    await state.enqueued("hq")
    await state.dequeue("hq", ["a"])
    await state.note("poll", {"listed": "1"})
    await state.noted("poll")


class StateContract:
    """Subclass it and provide `state`; `clock` comes from the conftest and stands at 2026-03-05 12:00 UTC."""

    async def test_a_lease_is_held_by_one(self, state: State) -> None:
        """A second lease of the same name is refused until the first is released; another name is free."""
        first = await state.lease("poll:hq", 30)
        assert first is not None
        assert await state.lease("poll:hq", 30) is None
        other = await state.lease("poll:branch", 30)
        assert other is not None
        await first.release()
        second = await state.lease("poll:hq", 30)
        assert second is not None
        await second.release()
        await other.release()

    async def test_a_fence_grows(self, state: State) -> None:
        """Each lease under a name has a greater fence than the one before it, even within one millisecond."""
        fences = []
        for _ in range(5):
            lease = await state.lease("poll:hq", 30)
            assert lease is not None
            fences.append(lease.fence)
            await lease.release()
        assert fences == sorted(set(fences))

    async def test_a_lease_is_renewed_while_it_is_held(self, state: State) -> None:
        """Renewing succeeds until the release and fails ever after; a second release does nothing."""
        lease = await state.lease("poll:hq", 30)
        assert lease is not None
        assert await lease.renew()
        await lease.release()
        assert not await lease.renew()
        successor = await state.lease("poll:hq", 30)
        assert successor is not None
        await lease.release()
        assert not await lease.renew()
        assert await successor.renew()
        assert await state.lease("poll:hq", 30) is None
        await successor.release()

    async def test_a_claim_is_held_by_one_and_leaves_nothing(self, state: State) -> None:
        """A claim is taken, renewed and given back like a lease; a name that was claimed is free again at once."""
        claim = await state.claim("hq:a", 30)
        assert claim is not None
        assert await claim.renew()
        assert await state.claim("hq:a", 30) is None
        other = await state.claim("hq:b", 30)
        assert other is not None
        await claim.release()
        assert not await claim.renew()
        successor = await state.claim("hq:a", 30)
        assert successor is not None
        await claim.release()
        assert await successor.renew()
        await successor.release()
        await other.release()

    async def test_permits_are_capped_for_each_source(self, state: State) -> None:
        """As many permits as the limit says, none more; one given back can be taken; sources do not share."""
        tokens = [await state.acquire("hq", 2), await state.acquire("hq", 2)]
        assert None not in tokens
        assert len(set(tokens)) == 2
        assert await state.acquire("hq", 2) is None
        assert await state.acquire("branch", 1) is not None
        await state.release("hq", tokens[0] or "")
        await state.release("hq", "never given out")
        assert await state.acquire("hq", 2) is not None
        assert await state.acquire("hq", 2) is None

    async def test_renewing_permits_neither_adds_nor_takes_any(self, state: State) -> None:
        """Renewed permits still count once; unknown ones are told and not added, and none at all are no mistake."""
        token = await state.acquire("hq", 2)
        assert await state.renew("hq", [token or "", "never given out"]) == {"never given out"}
        assert await state.renew("hq", [token or ""]) == frozenset()
        assert await state.renew("hq", []) == frozenset()
        assert await state.acquire("hq", 2) is not None
        assert await state.acquire("hq", 2) is None

    async def test_never_more_permits_than_the_limit(self, state: State) -> None:
        """Fifty coroutines that take and give back never hold more than the limit at once."""
        out = most = served = 0

        async def one() -> None:
            nonlocal out, most, served
            while (token := await state.acquire("hq", 4)) is None:  # noqa: ASYNC110 - nobody tells when one is free
                await asyncio.sleep(0)
            out += 1
            most = max(most, out)
            await asyncio.sleep(0)
            out -= 1
            served += 1
            await state.release("hq", token)

        await asyncio.gather(*(one() for _ in range(50)))
        assert served == 50
        assert most <= 4

    async def test_a_pace_spreads_requests(self, state: State) -> None:
        """Reservations made at once lie one interval apart, the first at once; sources do not share."""
        waits = [await state.reserve("hq", 0.01) for _ in range(4)]
        assert waits[0] == 0
        for number, wait in enumerate(waits):
            assert 100 * number - 10 <= wait <= 100 * number
        assert await state.reserve("branch", 0.01) == 0

    async def test_a_longer_pause_wins(self, state: State, clock: FakeClock) -> None:
        """A shorter pause changes nothing, a longer one replaces time and reason; forgetting ends it."""
        now = clock.now()
        assert await state.paused("hq") is None
        await state.pause("hq", now + timedelta(minutes=5), "429")
        await state.pause("hq", now + timedelta(minutes=1), "shorter")
        assert await state.paused("hq") == Pause(now + timedelta(minutes=5), "429")
        longer = now + timedelta(hours=24, microseconds=7)
        await state.pause("hq", longer, "locked out")
        assert await state.paused("hq") == Pause(longer, "locked out")
        assert await state.paused("branch") is None
        await state.unpause("hq")
        await state.unpause("hq")
        assert await state.paused("hq") is None

    async def test_a_pause_ends(self, state: State, clock: FakeClock) -> None:
        """From its end on a pause is not in force, and a new one takes its place; one in the past never is."""
        await state.pause("hq", clock.now() - timedelta(seconds=1), "past")
        assert await state.paused("hq") is None
        await state.pause("hq", clock.now() + timedelta(seconds=60), "429")
        clock.advance(60)
        assert await state.paused("hq") is None
        await state.pause("hq", clock.now() + timedelta(seconds=30), "again")
        assert await state.paused("hq") == Pause(clock.now() + timedelta(seconds=30), "again")

    async def test_a_watermark_only_moves_forward(self, state: State, clock: FakeClock) -> None:
        """An older value or an older fence is refused; the same again, a later value and a newer fence are accepted."""
        now = clock.now()
        assert await state.watermark("hq") is None
        assert await state.set_watermark("hq", now, 10)
        assert await state.set_watermark("hq", now, 10)
        assert not await state.set_watermark("hq", now - timedelta(microseconds=1), 11)
        assert not await state.set_watermark("hq", now + timedelta(hours=1), 9)
        assert await state.set_watermark("hq", now + timedelta(microseconds=1), 11)
        assert not await state.set_watermark("hq", now + timedelta(hours=1), 10)
        assert await state.set_watermark("branch", now - timedelta(days=1), 1)

    async def test_an_empty_day_is_not_an_unknown_day(self, state: State) -> None:
        """A day is None until it is remembered, then exactly what was read, even nothing; reading again replaces it."""
        assert await state.held("hq", DAY) is None
        await state.remember_held("hq", DAY, [])
        assert await state.held("hq", DAY) == frozenset()
        await state.remember_held("hq", DAY, iter(["a", "b"]))
        assert await state.held("hq", DAY) == {"a", "b"}
        await state.remember_held("hq", DAY, ["c"])
        assert await state.held("hq", DAY) == {"c"}
        assert await state.held("hq", DAY + timedelta(days=1)) is None
        assert await state.held("branch", DAY) is None

    async def test_held_recordings_are_added_to_remembered_days_alone(self, state: State) -> None:
        """One more recording joins a remembered day; an unknown day stays unknown, so that it is read in full."""
        await state.add_held("hq", DAY, ["a"])
        assert await state.held("hq", DAY) is None
        await state.remember_held("hq", DAY, [])
        await state.add_held("hq", DAY, ["a"])
        await state.add_held("hq", DAY, ["a"])
        assert await state.held("hq", DAY) == {"a"}

    async def test_a_busy_day_is_remembered_whole(self, state: State) -> None:
        """Twenty thousand recordings of one day come back, none missing."""
        rids = [f"rec-{number}" for number in range(20_000)]
        await state.remember_held("hq", DAY, rids)
        assert await state.held("hq", DAY) == set(rids)

    async def test_attempts_come_back_as_they_went(self, state: State) -> None:
        """An attempt is read back field for field, replaced by a newer one, and gone when it is forgotten."""
        assert await state.attempts("hq") == {}
        assert await state.attempt("hq", "a") is None
        await state.save_attempt("hq", "a", attempt())
        await state.save_attempt("hq", "b", attempt(crashes=2))
        await state.save_attempt("hq", "a", attempt(tries=2))
        assert await state.attempt("hq", "a") == attempt(tries=2)
        assert await state.attempts("hq") == {"a": attempt(tries=2), "b": attempt(crashes=2)}
        assert await state.attempts("branch") == {}
        await state.forget_attempt("hq", "a")
        await state.forget_attempt("hq", "a")
        assert await state.attempts("hq") == {"b": attempt(crashes=2)}

    async def test_a_stashed_text_is_kept_until_dropped(self, state: State) -> None:
        """A text is there until it is replaced or dropped; an unknown name gives None."""
        assert await state.unstash("batch:1") is None
        await state.stash("batch:1", "one", 600)
        await state.stash("batch:1", "two", 600)
        assert await state.unstash("batch:1") == "two"
        assert await state.unstash("batch:1") == "two"
        await state.drop("batch:1")
        await state.drop("batch:1")
        assert await state.unstash("batch:1") is None

    async def test_an_occupied_name_keeps_others_out(self, state: State) -> None:
        """The first owner has it, and may say so again; an empty text, or a dropped one, is free to take."""
        assert await state.occupy("chain:hq", "one", 45)
        assert await state.occupy("chain:hq", "one", 45)
        assert not await state.occupy("chain:hq", "two", 45)
        assert await state.unstash("chain:hq") == "one"
        await state.stash("chain:hq", "", 45)
        assert await state.occupy("chain:hq", "two", 45)
        assert not await state.occupy("chain:hq", "one", 45)
        await state.drop("chain:hq")
        assert await state.occupy("chain:hq", "one", 45)

    async def test_a_recording_is_enqueued_once(self, state: State) -> None:
        """Only recordings that are not on their way are returned, in order and once; taken back, they are again."""
        assert await state.enqueue("hq", [], 600) == []
        assert await state.enqueued("hq") == 0
        assert await state.enqueue("hq", ["b", "a", "b"], 600) == ["b", "a"]
        assert await state.enqueue("hq", iter(["a", "c", "b"]), 600) == ["c"]
        assert await state.enqueued("hq") == 3
        assert await state.enqueued("branch") == 0
        await state.dequeue("hq", ["a", "unknown"])
        await state.dequeue("hq", [])
        assert await state.enqueued("hq") == 2
        assert await state.enqueue("hq", ["a", "b"], 600) == ["a"]

    async def test_a_note_replaces_the_one_before(self, state: State) -> None:
        """A note is read back whole and leaves nothing of the earlier one; an empty note is none."""
        assert await state.noted("poll:hq") == {}
        await state.note("poll:hq", {"at": "2026-03-05T12:00:00Z", "error": "none"})
        await state.note("poll:hq", {"listed": "12"})
        assert await state.noted("poll:hq") == {"listed": "12"}
        await state.note("poll:hq", {})
        assert await state.noted("poll:hq") == {}

    async def test_hostile_text_comes_back_as_it_went(self, state: State, clock: FakeClock) -> None:
        """Ids, reasons and bodies with separators, wildcards, controls, half characters and 2,000 letters survive."""
        until = clock.now() + timedelta(minutes=1)
        for number, text in enumerate(HOSTILE):
            source = f"s{number}"
            await state.save_attempt(source, text, attempt(error=text))
            assert await state.attempts(source) == {text: attempt(error=text)}
            await state.pause(source, until, text)
            assert await state.paused(source) == Pause(until, text)
            await state.stash(text, text, 60)
            assert await state.unstash(text) == text
            assert await state.enqueue(source, [text], 60) == [text]
            await state.note(text, {text: text})
            assert await state.noted(text) == {text: text}
            await state.remember_held(source, DAY, [text])
            assert await state.held(source, DAY) == {text}
            lease = await state.lease(text, 30)
            assert lease is not None
            await lease.release()

    async def test_a_reachable_state_answers(self, state: State) -> None:
        """A ping returns when the state can be used."""
        await state.ping()
