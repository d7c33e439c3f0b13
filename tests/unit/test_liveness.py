"""The canary: how it sings, and who sings in its place."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from storage.state import StateUnavailable
from storage.state_redis import RedisState
from tasks.liveness import Answer, answer, last_answer, last_song, sing, singing
from tests.support.clock import FakeClock
from tests.support.valkey import Valkey


@pytest.fixture
async def state(valkey: Valkey, clock: FakeClock) -> AsyncIterator[RedisState]:
    """Return a state without any note."""
    valkey.flush()
    state = RedisState(valkey.url, "test", clock)
    yield state
    await state.aclose()


async def test_a_song_is_remembered_with_its_time(state: RedisState, clock: FakeClock) -> None:
    """The note holds when a worker was last at work, and who."""
    assert await last_song(state) is None
    await sing(state, clock)
    assert await last_song(state) == clock.now()


async def test_a_note_that_cannot_be_read_is_no_song(state: RedisState) -> None:
    """What another version may have written counts as absent."""
    await state.note("canary", {"at": "half past two"})
    assert await last_song(state) is None


async def test_an_answer_is_remembered_for_its_worker_alone(state: RedisState, clock: FakeClock) -> None:
    """Who answered, when, to which call, and what it does not hear; another worker's answer is another."""
    await answer(state, clock, "a", "call", ["poll", "archive"])
    assert await last_answer(state, "a") == Answer(clock.now(), "call", ("archive", "poll"))
    assert await last_answer(state, "b") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"at": "noon"}', '{"at": "2026-03-05T12:00:00"}', '{"at": null, "deaf": 7}']
)
async def test_an_answer_that_cannot_be_read_is_none(state: RedisState, text: str) -> None:
    """What another version may have written counts as absent."""
    await state.stash("answer:a", text, 60)
    assert await last_answer(state, "a") is None


async def test_answers_of_workers_long_gone_are_forgotten(state: RedisState, clock: FakeClock, valkey: Valkey) -> None:
    """An answer expires, so that a site whose containers never have the same name twice collects none."""
    await answer(state, clock, "a")
    with valkey.client() as asked:
        assert 0 < asked.ttl("callvault:test:stash:answer:a") <= 24 * 3600


class Alarm:
    """A clock whose sleepers are woken by the test."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asleep: list[tuple[float, asyncio.Event]] = []
        self.went_to_sleep = asyncio.Event()

    def now(self) -> datetime:
        return self.clock.now()

    def monotonic(self) -> float:
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self.asleep.append((seconds, event))
        self.went_to_sleep.set()
        await event.wait()

    async def next_minute(self) -> None:
        """Let a minute pass and wait until the singer sleeps again."""
        await self.went_to_sleep.wait()
        self.went_to_sleep.clear()
        seconds, event = self.asleep.pop()
        assert seconds == 60
        self.clock.advance(seconds)
        event.set()
        await self.went_to_sleep.wait()


async def test_a_long_task_sings_once_a_minute(state: RedisState, clock: FakeClock) -> None:
    """While a batch keeps a process busy it proves that the process works; a short task adds nothing."""
    alarm, began = Alarm(clock), clock.now()
    async with singing(state, alarm):
        await alarm.went_to_sleep.wait()
        assert await last_song(state) is None
        await alarm.next_minute()
        assert await last_song(state) == began + timedelta(minutes=1)
        await alarm.next_minute()
        assert await last_song(state) == began + timedelta(minutes=2)


async def test_a_long_task_answers_for_its_worker_too(state: RedisState, clock: FakeClock) -> None:
    """Its calls wait in the queue as long as all its processes are busy."""
    alarm, began = Alarm(clock), clock.now()
    async with singing(state, alarm, "a"):
        await alarm.next_minute()
        assert await last_song(state) == began + timedelta(minutes=1)
        assert await last_answer(state, "a") == Answer(began + timedelta(minutes=1), "", ())


async def test_a_state_that_is_away_for_a_minute_does_not_end_the_singing(clock: FakeClock) -> None:
    """The next minute is sung again when the state is back, and the work never notices."""
    alarm, heard = Alarm(clock), []

    class Flaky:
        async def note(self, name: str, fields: dict[str, str]) -> None:
            heard.append(fields["at"])
            if len(heard) == 1:
                raise StateUnavailable("away")

    async with singing(Flaky(), alarm):  # type: ignore[arg-type]  # the only method it needs
        await alarm.next_minute()
        await alarm.next_minute()
    assert len(heard) == 2
