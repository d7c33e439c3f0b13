"""The benchmark: `make bench`, with `ROUNDS=` (5) or `QUICK=1` to choose how long. Prints tables, judges nothing but
the targets in them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.contenders import Crew, everybody
from tests.bench.held import COUNTS, held
from tests.bench.measure import Stand
from tests.bench.moving import PLAN, QUICK, Sizes, moving
from tests.bench.site import AT_ONCE, SOURCE
from tests.bench.steady import latency, stall


def say(line: str = "") -> None:
    """Tell whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def has_rclone() -> bool:
    """Tell whether rclone is here; install it from the distribution's packages where that is ours to do."""
    if shutil.which("rclone"):
        return True
    if os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (
            ["apt-get", "-qq", "update"],
            ["apt-get", "-qq", "-y", "--no-install-recommends", "install", "rclone"],
        ):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if shutil.which("rclone"):
        return True
    say("rclone is not installed and could not be (apt-get install rclone): it is left out, and the ratios to it")
    return False


def main() -> int:
    """Run everything and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the recordings, one round: shows that it works"
    )
    parser.add_argument("--only", default="moving,held,latency,stall", help="parts, separated by commas")
    parser.add_argument("--sizes", default="", help="sizes in bytes, separated by commas")
    told = parser.parse_args()
    plan: Sizes = QUICK if told.quick else PLAN
    sizes = {int(size) for size in told.sizes.split(",") if size}
    plan = {size: count for size, count in plan.items() if not sizes or size in sizes}
    parts = told.only.split(",")
    chosen = ["limit", *(["rclone"] if has_rclone() else []), "script", "threads", "run", "workers"]
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as temporary, Stand() as stand:
        folder = Path(temporary)
        if "moving" in parts:
            with Crew(folder / "crew", stand, {SOURCE: {"max_connections": 2 * AT_ONCE}}, 2) as crew:
                moving(stand, everybody(folder, crew, chosen), plan, 1 if told.quick else told.rounds, say)
        if "held" in parts:
            say()
            held(stand, folder / "held", say, COUNTS[:1] if told.quick else COUNTS)
        if "latency" in parts:
            say()
            latency(stand, folder / "latency", say, intervals=1 if told.quick else 6)
        if "stall" in parts:
            say()
            stall(stand, folder / "stall", say, count=20 if told.quick else 500, rounds=1 if told.quick else 3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
