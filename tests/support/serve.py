"""The five simulated phone systems and an S3 in a process of their own, for `callvault demo` and for playing.

Prints one JSON line with addresses and settings. Then each line on standard input lets further calls end,
answered by one JSON line with what is finished by now; the end of the input stops everything.
"""

import json
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3

from tests.support.audio import mp3, wav
from tests.support.catapult import SimulatedCatapult
from tests.support.imagicle import SimulatedImagicle
from tests.support.s3 import moto
from tests.support.simulator import Call, Simulator
from tests.support.verba import SimulatedVerba
from tests.support.xivo import SimulatedXivo
from tests.support.yeastar import SimulatedYeastar

BUCKET = "callvault-demo"
KINDS: dict[str, type[Simulator]] = {
    "london-desk": SimulatedVerba,
    "milan": SimulatedImagicle,
    "hq": SimulatedYeastar,
    "support": SimulatedXivo,
    "cloud": SimulatedCatapult,
}
FIRST, LATER = 12, 3
"""Calls that have ended when the demo begins, and calls that end at each further line."""


class Company:
    """Five sites whose people telephone."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._number = 0
        self.sites = {name: kind() for name, kind in KINDS.items()}
        for name in self.sites:
            for turn in range(FIRST):
                self.telephone(name, minutes_ago=90 - 7 * turn)
        # one recording whose hash in the phone system's own books is wrong: it must not pass for archived
        self.sites["milan"].calls[4].hash = "wrong"

    def telephone(self, site: str, minutes_ago: float) -> None:
        """Let one call of a site end."""
        self._number += 1
        number = self._number
        direction = ("inbound", "outbound", "internal")[number % 3]
        directions = {"milan": ("inbound", "outbound"), "cloud": ("inbound", "outbound")}
        if site in directions and direction == "internal":
            direction = "inbound"
        outside, inside = f"+1555010{number % 1000:04d}", str(1000 + number % 40)
        call = Call(
            number=number,
            started_at=self._now - timedelta(minutes=minutes_ago, seconds=number % 50),
            seconds=5 + number % 40,
            direction=direction,
            from_=outside if direction == "inbound" else inside,
            to=inside if direction in ("inbound", "internal") else outside,
            media=mp3(frames=400, seed=number) if site == "milan" else wav(5 + number % 10, seed=number),
        )
        self.sites[site].add(call)

    def finished(self) -> dict[str, int]:
        """Return how many recordings each site has."""
        return {name: len(site.finished()) for name, site in self.sites.items()}

    def introduction(self, s3: str) -> dict[str, Any]:
        """Return what a configuration needs."""
        sources = [
            {"name": n, "vendor": s.vendor, "url": s.url, "timezone": s.timezone, "options": s.settings()}
            for n, s in self.sites.items()
        ]
        return {"s3": s3, "bucket": BUCKET, "sources": sources, "finished": self.finished()}


def main() -> None:
    """Serve until the input ends."""
    with ExitStack() as stack:
        s3 = stack.enter_context(moto())
        client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="demo",
                              aws_secret_access_key="demo-secret")  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        company = Company(datetime.now(UTC).replace(microsecond=0))
        for site in company.sites.values():
            stack.enter_context(site)
        sys.stdout.write(json.dumps(company.introduction(s3)) + "\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            for name in company.sites:
                for turn in range(LATER):
                    company.telephone(name, minutes_ago=2 - turn / 2)
            sys.stdout.write(json.dumps(company.finished()) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
