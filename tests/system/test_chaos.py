"""A short fault campaign: `make chaos` for less than a minute, with the faults that are quickly over."""

from pathlib import Path

from tests.chaos.campaign import Campaign, Plan
from tests.chaos.table import broken, table

PLAN = Plan(seed=20, minutes=0.4, calls=200, acts_per_second=1.2, share=0.06, faults=20, heavy=False)


def test_a_short_campaign_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Kills, cuts, flushes and refusals at every boundary: lost 0, doubled 0, wrong 0, caps kept, no bug logged."""
    outcome = Campaign(PLAN, tmp_path).run(lambda _: None)
    assert broken(outcome) == [], table(outcome)
    assert outcome.audit.expected >= PLAN.calls - 10
    assert {boundary for boundary, _, _ in outcome.ledger.faults()} == {"S3", "broker", "phone system", "process"}
