"""The fault campaign: `make chaos`, with `SEED=` and `MINUTES=` to choose. Exits 1 when a promise was broken."""

import argparse
import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaign import Campaign, Plan
from tests.chaos.table import broken, table

_CALLS_PER_MINUTE = 510
_ACTS_PER_SECOND = 0.8
_SHARE = 0.11
_FAULTS_PER_MINUTE = 210


def say(line: str) -> None:
    """Tell whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run one campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--keep", type=Path, help="where logs are left; a temporary folder otherwise")
    told = parser.parse_args()
    seed = secrets.randbelow(10**6) if told.seed is None else told.seed
    for name in [n for n in os.environ if n.startswith(("AWS_", "CALLVAULT_"))]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through all that has to be ended on the way
    plan = Plan(
        seed,
        told.minutes,
        int(told.minutes * _CALLS_PER_MINUTE),
        _ACTS_PER_SECOND,
        _SHARE,
        int(told.minutes * _FAULTS_PER_MINUTE),
        heavy=True,
    )
    say(f"seed {seed}, {told.minutes:g} minutes of faults")
    with tempfile.TemporaryDirectory(prefix="callvault-chaos-") as temporary:
        folder = told.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = Campaign(plan, folder).run(say)
    say(table(outcome))
    return 1 if broken(outcome) else 0


if __name__ == "__main__":
    sys.exit(main())
