"""The gate in front of a source: its cap, its pace, its pauses, its permits' upkeep, and when it counts as silent."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta

import pytest
import pytest_asyncio

from config.settings import Source, VendorOptions
from storage.state import PERMIT_LIFE, Pause, StateUnavailable
from tests.support.clock import FakeClock
from tests.support.permits import MemoryPermits
from worker import limits
from worker.errors import WaitUntil
from worker.limits import Gate, Slot


class WatchedPermits(MemoryPermits):
    """Counts renewals, and can be made to fail or to hold back an answer."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.down = False
        self.acquired = 0
        self.renewed: list[tuple[str, ...]] = []
        self.renewed_thrice = asyncio.Event()
        self.may_renew = asyncio.Event()
        self.may_renew.set()
        self.may_release = asyncio.Event()
        self.may_release.set()

    def _reach(self) -> None:
        if self.down:
            raise StateUnavailable("the state server does not answer")

    async def acquire(self, source: str, limit: int) -> str | None:
        self._reach()
        token = await super().acquire(source, limit)
        self.acquired += token is not None
        return token

    async def renew(self, source: str, tokens: Iterable[str]) -> frozenset[str]:
        self.renewed.append(tuple(tokens))
        if len(self.renewed) >= 3:
            self.renewed_thrice.set()
        await self.may_renew.wait()
        self._reach()
        return await super().renew(source, self.renewed[-1])

    async def release(self, source: str, token: str) -> None:
        await self.may_release.wait()
        self._reach()
        await super().release(source, token)


def source(*, connections: int = 2, rate: float | None = None) -> Source:
    """Return a source with this cap and pace."""
    return Source(
        name="hq",
        vendor="any",
        url="http://127.0.0.1:9",
        max_connections=connections,
        requests_per_second=rate,
        options=VendorOptions(),
    )


@pytest_asyncio.fixture
async def permits(clock: FakeClock) -> AsyncIterator[WatchedPermits]:
    """Return permits that nobody holds; at the end none may be left over."""
    made = WatchedPermits(clock)
    yield made
    assert made.down or made.in_use("hq") == 0


@pytest.fixture
def gate(permits: WatchedPermits, clock: FakeClock) -> Gate:
    """Return a gate of two connections without a pace."""
    return Gate(source(), permits, clock)


async def turns(count: int = 20) -> None:
    """Let everything that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


class Seconds:
    """The time in which permits are measured, moved by the test, and renewals that come as fast as they can."""

    def __init__(self, permits: WatchedPermits) -> None:
        self._permits = permits
        self.passed = 0.0

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and then a renewal begin and end, whatever comes of it."""
        self.passed += seconds
        self._permits.renewed.clear()
        self._permits.renewed_thrice.clear()
        await asyncio.wait_for(self._permits.renewed_thrice.wait(), 20)


@pytest.fixture
def seconds(permits: WatchedPermits, monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """Return the time in which permits are measured."""
    seconds = Seconds(permits)
    monkeypatch.setattr(limits, "_now", lambda: seconds.passed)
    monkeypatch.setattr(limits, "_RENEW_EVERY", 0)
    return seconds


# The cap


async def test_no_more_slots_than_connections(gate: Gate, permits: WatchedPermits) -> None:
    """A third request waits until one of two slots is given back; releasing twice gives back once."""
    first, second = await gate.enter(), await gate.enter()
    third = asyncio.create_task(gate.enter())
    await turns()
    assert not third.done()
    await first.release()
    await first.release()
    slot = await third
    assert permits.in_use("hq") == 2
    fourth = asyncio.create_task(gate.enter())
    await turns()
    assert not fourth.done()
    await second.release()
    await slot.release()
    await (await fourth).release()


async def test_the_cap_counts_all_processes(permits: WatchedPermits, clock: FakeClock) -> None:
    """Fifty requests through the gates of two processes never are more than the cap, and all are served."""
    gates = [Gate(source(connections=3), permits, clock) for _ in range(2)]
    served = 0

    async def one(gate: Gate) -> None:
        nonlocal served
        slot = await gate.enter()
        await turns(2)
        served += 1
        await slot.release()

    await asyncio.gather(*(one(gate) for gate in gates for _ in range(25)))
    assert (served, permits.most) == (50, 3)


async def test_a_permit_goes_from_hand_to_hand(gate: Gate, permits: WatchedPermits, clock: FakeClock) -> None:
    """Who waits here gets the permit of who is done: the state is asked for as many as are in use at once, no more."""

    async def one() -> None:
        slot = await gate.enter()
        await turns(2)
        assert permits.in_use("hq") == 2
        await slot.release()

    await asyncio.gather(*(one() for _ in range(20)))
    assert permits.acquired == 2
    assert clock.slept == []


async def test_other_processes_have_their_chance(
    gate: Gate, permits: WatchedPermits, clock: FakeClock, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few seconds a permit is given back, and who waits here lets others ask first."""
    first, second = await gate.enter(), await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await turns()
    seconds.passed += limits._PASSED_ON
    await first.release()
    third = await waiting
    assert permits.acquired == 2, "still within its time"
    waiting = asyncio.create_task(gate.enter())
    await turns()
    seconds.passed += 0.1
    other = Gate(source(), permits, clock)
    elsewhere: list[Slot] = []

    async def chance(_: float) -> None:
        elsewhere.append(await other.enter())
        await elsewhere[0].release()

    monkeypatch.setattr(clock, "sleep", chance)
    await third.release()
    await (await waiting).release()
    assert len(elsewhere) == 1
    await second.release()


async def test_at_work_a_permit_waits_for_the_next_request(gate: Gate, permits: WatchedPermits) -> None:
    """One after the other needs one permit; when all work is over, and not before, it is given back."""
    async with gate.at_work(), gate.at_work():
        for _ in range(5):
            await (await gate.enter()).release()
        assert (permits.acquired, permits.in_use("hq")) == (1, 1)
    assert permits.in_use("hq") == 0
    await (await gate.enter()).release()
    assert permits.acquired == 2


async def test_what_is_not_needed_for_a_moment_is_given_back(
    gate: Gate, permits: WatchedPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the work goes on: others may need it. What is used again and again is kept, the last used first."""
    monkeypatch.setattr(limits, "_SPARED", 0.0)
    async with gate.at_work():
        slots = [await gate.enter(), await gate.enter()]
        for slot in slots:
            await slot.release()
        assert permits.in_use("hq") == 2
        last = await gate.enter()
        await turns()
        assert permits.in_use("hq") == 1
        await last.release()
        await turns()
        assert permits.in_use("hq") == 0


async def test_an_old_permit_is_not_kept(gate: Gate, permits: WatchedPermits, seconds: Seconds) -> None:
    """After a few seconds it is asked for anew, also where nobody here waits."""
    async with gate.at_work():
        slot = await gate.enter()
        seconds.passed += limits._PASSED_ON + 0.1
        await slot.release()
        assert permits.in_use("hq") == 0
        await (await gate.enter()).release()
        assert permits.acquired == 2


async def test_kept_a_little_longer_while_something_is_younger(
    gate: Gate, permits: WatchedPermits, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking again and again ends with the last of them."""
    monkeypatch.setattr(limits, "_SPARED", 1e-9)
    async with gate.at_work():
        first, second = await gate.enter(), await gate.enter()
        await first.release()
        seconds.passed += 1
        await second.release()
        await turns()
        assert permits.in_use("hq") == 1, "the younger one"
        seconds.passed += 1
        await turns()
        assert permits.in_use("hq") == 0


async def test_who_waits_here_does_not_ask_in_vain(
    gate: Gate, permits: WatchedPermits, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot's place in this process is free only once its permit is: the next one gets it without asking twice."""
    monkeypatch.setattr(limits, "_PASSED_ON", -1.0)
    first, second = await gate.enter(), await gate.enter()
    permits.may_release.clear()
    waiting = asyncio.create_task(gate.enter())
    leaving = asyncio.create_task(first.release())
    await turns()
    assert not waiting.done()
    permits.may_release.set()
    await leaving
    await (await waiting).release()
    await second.release()
    assert len(clock.slept) == 1, "to let others ask first"


async def test_a_permit_kept_for_who_waits_no_more_is_given_back(permits: WatchedPermits, clock: FakeClock) -> None:
    """Cancelled in the moment it would have been theirs, or while a pause is sat out."""
    gate = Gate(source(connections=1), permits, clock)
    slot = await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await turns()
    await slot.release()
    assert permits.in_use("hq") == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await turns()
    assert permits.in_use("hq") == 0
    await (await gate.enter()).release()


async def test_a_permit_kept_through_a_long_pause_is_asked_for_anew(
    permits: WatchedPermits, clock: FakeClock, seconds: Seconds
) -> None:
    """Nobody renewed it meanwhile: by now it may be another's."""
    gate = Gate(source(connections=1), permits, clock)
    slot = await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await turns()
    await gate.pause(30, "busy")
    await slot.release()
    assert permits.in_use("hq") == 1
    seconds.passed += limits._LOST_AFTER + 1
    last = await waiting
    assert not last.lost
    assert permits.acquired == 2
    await last.release()


async def test_a_cancelled_caller_gives_back_all_the_same(gate: Gate, permits: WatchedPermits) -> None:
    """Cancelled while it gives its slot back, the caller stops at once and the permit is given back behind it."""
    slot = await gate.enter()
    permits.may_release.clear()
    leaving = asyncio.create_task(slot.release())
    await turns()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert permits.in_use("hq") == 1
    permits.may_release.set()
    await turns()
    assert permits.in_use("hq") == 0
    for again in [await gate.enter(), await gate.enter()]:
        await again.release()


async def test_a_caller_that_cannot_enter_takes_no_place(permits: WatchedPermits, clock: FakeClock) -> None:
    """A failure or a cancellation on the way in leaves the place to the next."""
    gate = Gate(source(connections=1), permits, clock)
    permits.down = True
    for _ in range(3):
        with pytest.raises(StateUnavailable):
            await gate.enter()
    permits.down = False
    slot = await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await turns()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await slot.release()
    await (await gate.enter()).release()


async def test_a_permit_that_cannot_be_given_back_harms_nobody(
    gate: Gate, permits: WatchedPermits, clock: FakeClock
) -> None:
    """With the state gone a finished request is still finished; its permit lapses and the place is free again."""
    slots = [await gate.enter(), await gate.enter()]
    permits.down = True
    for slot in slots:
        await slot.release()
    permits.down = False
    clock.advance(60)
    for slot in [await gate.enter(), await gate.enter()]:
        await slot.release()


# Renewal


async def test_permits_are_renewed_while_they_are_held(
    gate: Gate, permits: WatchedPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The permits of open requests are renewed again and again, also after the state was gone for a while."""
    monkeypatch.setattr(limits, "_RENEW_EVERY", 0)
    slots = [await gate.enter(), await gate.enter()]
    permits.down = True
    await asyncio.wait_for(permits.renewed_thrice.wait(), 20)
    permits.down = False
    assert all(sorted(tokens) == ["1", "2"] for tokens in permits.renewed)
    for slot in slots:
        await slot.release()
    await turns(3)  # the last one under way ends
    count = len(permits.renewed)
    await turns()
    assert len(permits.renewed) == count


async def test_renewal_begins_anew_with_the_next_request(
    gate: Gate, permits: WatchedPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all slots were given back, the next one is renewed too."""
    await (await gate.enter()).release()
    monkeypatch.setattr(limits, "_RENEW_EVERY", 0)
    slot = await gate.enter()
    await asyncio.wait_for(permits.renewed_thrice.wait(), 20)
    await slot.release()
    assert set(permits.renewed) == {("2",)}


async def test_a_renewal_that_hangs_does_not_hold_up_the_next(
    gate: Gate, permits: WatchedPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewals are sent at their time though the answers to those before have not come: a connection may be mute."""
    monkeypatch.setattr(limits, "_RENEW_EVERY", 0)
    permits.may_renew.clear()
    slot = await gate.enter()
    await asyncio.wait_for(permits.renewed_thrice.wait(), 20)
    await slot.release()
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "what was under way ended with the last slot"


def test_a_few_renewals_may_be_lost() -> None:
    """A slot survives three failures in a row, and a lost one is ended a second and more before its permit lapses."""
    assert limits._RENEW_EVERY * 4 <= limits._LOST_AFTER
    assert limits._LOST_AFTER + limits._RENEW_EVERY + 1 < PERMIT_LIFE


# Losing the right


@pytest.mark.parametrize("trouble", ["unreachable", "mute", "lapsed"])
async def test_who_cannot_renew_ends_what_is_open(
    gate: Gate, permits: WatchedPermits, seconds: Seconds, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut off, unanswered, or told that the permit lapsed: open requests are ended, once, and it is logged."""
    first, second = await gate.enter(), await gate.enter()
    ended: list[int] = []
    first.ends_by(lambda: ended.append(1))
    second.ends_by(lambda: ended.append(2))
    await seconds.pass_by(limits._LOST_AFTER / 2)
    assert ended == []
    if trouble == "lapsed":
        permits.forget("hq")
    else:
        permits.down = trouble == "unreachable"
        if trouble == "mute":
            permits.may_renew.clear()
        await seconds.pass_by(1)
        assert ended == []
        seconds.passed += limits._LOST_AFTER
    await turns()
    assert sorted(ended) == [1, 2]
    assert first.lost
    assert second.lost
    permits.down = False
    permits.may_renew.set()
    await turns()
    assert first.lost, "a renewal that comes through later changes nothing"
    for slot in (first, second):
        await slot.release()
    for slot in [await gate.enter(), await gate.enter()]:
        await seconds.pass_by(1)
        assert not slot.lost
        await slot.release()
    assert len(ended) == 2
    assert [record.msg["requests"] for record in caplog.records if "permit_lost" in record.getMessage()] == [2]


async def test_a_renewed_slot_is_not_lost(gate: Gate, permits: WatchedPermits, seconds: Seconds) -> None:
    """As long as renewals succeed a slot is good for ever; one that is given back while it is renewed is no loss."""
    slot, other = await gate.enter(), await gate.enter()
    for _ in range(5):
        await seconds.pass_by(limits._LOST_AFTER - 0.1)
        assert not slot.lost
    permits.may_renew.clear()
    await seconds.pass_by(0)
    await other.release()
    permits.may_renew.set()
    await turns()
    assert not slot.lost
    await slot.release()


async def test_only_the_time_from_before_a_renewal_counts(
    gate: Gate, permits: WatchedPermits, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that was long on its way extends the right by what is left of it, not from when it came."""
    inner = permits.renew

    async def slow(source: str, tokens: Iterable[str]) -> frozenset[str]:
        lapsed = await inner(source, tokens)
        seconds.passed += 4
        return lapsed

    monkeypatch.setattr(permits, "renew", slow)
    monkeypatch.setattr(limits, "_RENEW_EVERY", 60)
    slot = await gate.enter()
    seconds.passed += 4
    await gate._renew()
    seconds.passed += limits._LOST_AFTER - 4
    assert not slot.lost
    seconds.passed += 0.1
    assert slot.lost
    await slot.release()


async def test_a_lost_slot_ends_the_wait_for_an_answer(gate: Gate) -> None:
    """Who waits for an answer is woken with a TimeoutError, and who comes later does not even begin."""
    slot = await gate.enter()
    begun = asyncio.Event()

    async def asking() -> None:
        async with slot.waiting():
            begun.set()
            await asyncio.Event().wait()

    waiting = asyncio.create_task(asking())
    await begun.wait()
    slot.take_away()
    with pytest.raises(TimeoutError):
        await waiting
    begun.clear()
    with pytest.raises(TimeoutError):
        await asking()
    assert not begun.is_set()
    await slot.release()


async def test_a_slot_that_is_not_lost_lets_its_request_be(gate: Gate) -> None:
    """An answer that comes is handed on, whatever is taken away afterwards; a slot with nothing open ends nothing."""
    slot = await gate.enter()
    async with slot.waiting():
        await asyncio.sleep(0)
    slot.take_away()
    await slot.release()


async def test_a_permit_that_is_told_of_too_late_is_not_used(
    gate: Gate, permits: WatchedPermits, seconds: Seconds, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the state's answer took so long that the permit may have lapsed, it is given back and asked for anew."""
    inner, late = permits.acquire, [PERMIT_LIFE, PERMIT_LIFE, 0]

    async def slow(source: str, limit: int) -> str | None:
        token = await inner(source, limit)
        seconds.passed += late.pop(0)
        return token

    monkeypatch.setattr(permits, "acquire", slow)
    slot = await gate.enter()
    assert not slot.lost
    assert late == []
    assert (permits.most, permits.in_use("hq")) == (1, 1)
    await slot.release()


# Pace


async def test_requests_keep_the_pace(permits: WatchedPermits, clock: FakeClock) -> None:
    """At two a second, the first request leaves at once and the others half a second after each other."""
    gate = Gate(source(rate=2), permits, clock)
    for _ in range(3):
        await gate.keep_pace()
    assert clock.slept == [0.5, 0.5]


async def test_the_configured_pace_beats_the_vendors(permits: WatchedPermits, clock: FakeClock) -> None:
    """A vendor's own limit holds where the configuration says nothing, and only there."""
    vendors, configured = Gate(source(), permits, clock, 4), Gate(source(rate=10), permits, clock, 4)
    await vendors.keep_pace()
    await vendors.keep_pace()
    assert clock.slept == [0.25]
    clock.advance(60)
    await configured.keep_pace()
    await configured.keep_pace()
    assert clock.slept[1:] == [pytest.approx(0.1)]


async def test_without_a_pace_nothing_waits(gate: Gate, clock: FakeClock) -> None:
    """A source with no limit is asked as fast as its slots allow."""
    for _ in range(100):
        await gate.keep_pace()
    assert clock.slept == []


# Pauses


async def test_a_short_pause_is_sat_out(gate: Gate, clock: FakeClock) -> None:
    """Within a pass's patience the caller waits exactly as long as the source asked, then enters."""
    await gate.pause(30, "429")
    await (await gate.enter()).release()
    assert clock.slept == [30]


async def test_a_long_pause_ends_the_pass(gate: Gate, permits: WatchedPermits) -> None:
    """Beyond a pass's patience nobody waits: the caller is told the reason and for how long."""
    await gate.pause(600, "locked out after five failures")
    with pytest.raises(WaitUntil, match="locked out after five failures") as caught:
        await gate.enter()
    assert caught.value.seconds == 600
    assert permits.in_use("hq") == 0


async def test_a_pause_holds_for_all_processes(gate: Gate, permits: WatchedPermits, clock: FakeClock) -> None:
    """What one process was told, the others keep to."""
    await Gate(source(), permits, clock).pause(10, "429")
    await gate.sit_out_pause()
    assert clock.slept == [10]


async def test_whether_there_is_a_pause_is_asked_once_for_many(
    gate: Gate, permits: WatchedPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that follow each other at once share a look; one asked for here holds for the next all the same."""
    looks = 0
    real = permits.paused

    async def counted(name: str) -> Pause | None:
        nonlocal looks
        looks += 1
        return await real(name)

    monkeypatch.setattr(permits, "paused", counted)
    for _ in range(20):
        await gate.sit_out_pause()
    assert looks == 1
    await gate.pause(600, "429")
    with pytest.raises(WaitUntil):
        await gate.enter()


async def test_a_pause_asked_for_while_waiting_holds(permits: WatchedPermits, clock: FakeClock) -> None:
    """Who waits for another process's permit when the source asks for a pause keeps to it."""
    there, here = (Gate(source(connections=1), permits, clock) for _ in range(2))
    slot = await there.enter()
    waiting = asyncio.create_task(here.enter())
    await turns(3)
    await there.pause(600, "429")
    await slot.release()
    with pytest.raises(WaitUntil, match="429"):
        await waiting


async def test_a_pause_that_grows_while_it_is_sat_out_is_sat_out_too(
    gate: Gate, permits: WatchedPermits, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After waiting, the caller looks again: the source may have asked for more meanwhile."""
    await gate.pause(10, "429")
    inner = clock.sleep

    async def asked_again(seconds: float) -> None:
        if not clock.slept:
            await gate.pause(25, "429 again")
        await inner(seconds)

    monkeypatch.setattr(clock, "sleep", asked_again)
    await gate.sit_out_pause()
    assert clock.slept == [10, 15]


async def test_a_pause_that_is_over_holds_nobody(clock: FakeClock) -> None:
    """A pause told in the very moment of its end is not waited for."""

    class Late(MemoryPermits):
        async def paused(self, source: str) -> Pause | None:
            return Pause(_ended(clock), "429")

    gate = Gate(source(), Late(clock), clock)
    assert not await gate.sit_out_pause()
    await gate.keep_pace()
    assert clock.slept == []


async def test_a_pause_set_while_the_pace_is_waited_for_holds(
    permits: WatchedPermits, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for its place and then for the end of a pause books a new place: not all go at once."""
    gate = Gate(source(rate=0.5), permits, clock)
    await gate.keep_pace()
    inner, booked = clock.sleep, permits.reserve
    places: list[float] = []

    async def asked_to_wait(seconds: float) -> None:
        if not clock.slept:
            await gate.pause(30, "429")
        await inner(seconds)

    async def counted(name: str, rate: float) -> float:
        places.append(await booked(name, rate))
        return places[-1]

    monkeypatch.setattr(clock, "sleep", asked_to_wait)
    monkeypatch.setattr(permits, "reserve", counted)
    await gate.keep_pace()
    assert clock.slept == [2, 28]
    assert len(places) == 2


async def test_a_long_pause_set_while_the_pace_is_waited_for_is_handed_up(
    permits: WatchedPermits, clock: FakeClock
) -> None:
    """Beyond a pass's patience the request is not made."""
    gate = Gate(source(), permits, clock)
    await gate.pause(600, "429")
    with pytest.raises(WaitUntil, match="429"):
        await gate.keep_pace()


def _ended(clock: FakeClock) -> datetime:
    return clock.now() - timedelta(milliseconds=1)


# Silence


async def held_for(slot: Slot, clock: FakeClock, seconds: float) -> None:
    """Hold an open slot for so long, and give it back."""
    clock.advance(seconds)
    await slot.release()


async def test_silence_is_counted_while_a_request_is_open(gate: Gate, clock: FakeClock) -> None:
    """An open request without progress makes the source silent; each sign of life starts the count anew."""
    slot = await gate.enter()
    clock.advance(40)
    assert gate.idle_seconds() == 40
    gate.progress()
    assert gate.idle_seconds() == 0
    clock.advance(7)
    assert gate.idle_seconds() == 7
    await slot.release()
    assert gate.idle_seconds() == 0


async def test_time_without_requests_is_nobodys_silence(gate: Gate, clock: FakeClock) -> None:
    """What passes between two requests, such as work on the archive, does not count, whatever was noted in it."""
    clock.advance(500)
    assert gate.idle_seconds() == 0
    await held_for(await gate.enter(), clock, 5)
    clock.advance(300)
    gate.progress()
    clock.advance(200)
    slot = await gate.enter()
    assert gate.idle_seconds() == 0
    clock.advance(3)
    assert gate.idle_seconds() == 3
    await slot.release()


async def test_requests_that_fail_one_after_the_other_add_up(gate: Gate, clock: FakeClock) -> None:
    """A source whose every request times out becomes silent, though a new request is opened each time."""
    for _ in range(2):
        await held_for(await gate.enter(), clock, 30)
        clock.advance(1)
    slot = await gate.enter()
    clock.advance(1)
    assert gate.idle_seconds() == 61
    await slot.release()


async def test_our_own_waiting_is_not_the_sources_silence(permits: WatchedPermits, clock: FakeClock) -> None:
    """Neither the pace nor a pause sat out within a slot makes the source look silent."""
    gate = Gate(source(rate=0.05), permits, clock)
    slot = await gate.enter()
    for _ in range(4):
        await gate.keep_pace()
    assert gate.idle_seconds() == 0
    await gate.pause(50, "429")
    await gate.sit_out_pause()
    assert gate.idle_seconds() == 0
    await slot.release()


async def test_waiting_for_the_archive_is_not_the_sources_silence(gate: Gate, clock: FakeClock) -> None:
    """While anybody waits for the archive nothing is counted; afterwards the count starts anew, errors or not."""
    slot = await gate.enter()
    clock.advance(50)

    def store() -> None:
        with gate.excused():
            with gate.excused():
                clock.advance(100)
            clock.advance(100)
            assert gate.idle_seconds() == 0
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        store()
    assert gate.idle_seconds() == 0
    clock.advance(7)
    assert gate.idle_seconds() == 7
    await slot.release()
