"""Retention only grows: whatever is done in whatever order, nothing may go before the longest date it was promised."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from storage.holds import Scope
from tests.support.decade import Terms, World

QUEUES = st.sampled_from(("trading", "support", "sales"))
NUMBERS = st.sampled_from(("+442070000001", "+390600000003"))
KEEPS = st.sampled_from(("1d", "2d", "10d", "30d", "1y"))
TERMS = st.builds(Terms, KEEPS, st.dictionaries(QUEUES, KEEPS, max_size=2))
SCOPES = st.one_of(
    st.builds(lambda queue: Scope(queue=queue), QUEUES),
    st.builds(lambda number: Scope(number=number), NUMBERS),
    st.builds(lambda number: Scope(recordings=(f"hq/rec-{number}",)), st.integers(1, 6)),
)


class Life(RuleBasedStateMachine):
    """One archive; the model beside it raises where a promise is broken, after each act."""

    @initialize(terms=TERMS)
    def begin(self, terms: Terms) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.world = World(Path(self.folder.name), terms)
        self.matters = 0

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.close()
            self.folder.cleanup()

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        self.runner.run(work)
        self.world.look()
        self.world.close()

    @rule(queue=QUEUES, number=NUMBERS, late=st.sampled_from((0, 0, 5, 400)))
    def arrive(self, queue: str, number: str, late: float) -> None:
        self.do(self.world.arrive(queue, number, days_late=late))

    @rule(days=st.sampled_from((0.2, 1, 1, 9, 31, 366)))
    def wait(self, days: float) -> None:
        self.world.archive.later(days)

    @rule(terms=TERMS, brought=st.booleans())
    def adopt(self, terms: Terms, brought: bool) -> None:
        self.do(self.world.adopt(terms))
        if brought:
            self.do(self.world.grow())

    @rule()
    def audit(self) -> None:
        self.do(self.world.audit())

    @rule(scope=SCOPES)
    def place(self, scope: Scope) -> None:
        self.matters += 1
        self.do(self.world.place(f"matter-{self.matters}", scope))

    @precondition(lambda self: self.world.matters)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.do(self.world.release(data.draw(st.sampled_from(sorted(self.world.matters)))))

    @precondition(lambda self: self.world.known)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        self.do(self.world.erase(data.draw(st.sampled_from(sorted(self.world.known)))))

    @rule(limit=st.sampled_from((10_000, 1)))
    def expire(self, limit: int) -> None:
        self.do(self.world.expire(limit))


def test_no_sequence_of_changes_lets_a_recording_go_before_its_longest_promise() -> None:
    """Policies that grow and shrink, matters, erasures, audits, expiry, late arrivals and waiting, in any order."""
    run_state_machine_as_test(Life, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))  # type: ignore[no-untyped-call]
