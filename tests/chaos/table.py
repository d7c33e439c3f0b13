"""What a campaign prints: one table, the same for people and for the closing of an incident."""

import os
from collections.abc import Iterator
from itertools import groupby

from tests.chaos.campaign import Outcome
from tests.chaos.people import CAP

_WIDTH = 72


def broken(outcome: Outcome) -> list[str]:
    """Return every promise that did not hold, in words."""
    found = outcome.ledger.told()
    found += [f"cap: {name} saw {most} requests at once" for name, most in outcome.most_at_once.items() if most > CAP]
    return found + [f"unforeseen: {bug}" for bug in outcome.bugs[:10]]


def table(outcome: Outcome) -> str:
    """Return the table."""
    return "\n".join(_lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    plan, ledger, audit = outcome.plan, outcome.ledger, outcome.audit
    yield f"callvault fault campaign, seed {plan.seed}".center(_WIDTH)
    yield (
        f"{plan.minutes:g} min of faults, {outcome.calm_seconds:.0f} s of calm, {os.cpu_count()} cores".center(_WIDTH)
    )
    for boundary, rows in groupby(ledger.faults(), key=lambda row: row[0]):
        listed = list(rows)
        yield _row(f"{boundary}:", sum(count for _, _, count in listed), "=")
        for _, kind, count in listed:
            yield _row(f"  {kind}", count)
    yield _row(f"faults injected, {ledger.kinds} kinds", ledger.total, "=")
    yield _row("recordings expected", audit.expected)
    yield _row("  held", audit.held)
    yield _row("  pending", audit.pending)
    yield _row("  gaps, each with its reason", audit.gaps.total())
    for reason, count in sorted(audit.gaps.items()):
        yield _row(f"    {reason}", count)
    yield _row("gone at the phone system before they were archived", audit.gone)
    yield _row("lost", ledger.breaches("lost"), "=")
    yield _row("doubled", ledger.breaches("doubled"))
    yield _row("wrong bytes visible", ledger.breaches("wrong"))
    yield _row("deleted", ledger.breaches("deleted"))
    yield _row("multipart uploads left behind", audit.uploads)
    yield _row(f"most requests at once to any source, {CAP} allowed", max(outcome.most_at_once.values()))
    yield _row("unforeseen errors in the logs", len(outcome.bugs))
    if outcome.steps_missed:
        yield f"nobody died at: {', '.join(outcome.steps_missed)}"
    yield from (f"BROKEN {line}" for line in broken(outcome))


def _row(name: str, count: int, fill: str = ".") -> str:
    filler = " " * (_WIDTH - len(name) - 8) if fill == "=" else " " + "." * (_WIDTH - len(name) - 10) + " "
    return f"{name}{filler}{count:>8,}"
