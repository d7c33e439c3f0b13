"""Five phone systems whose people telephone all the time, and the truth about what they said.

A call's fate is decided when it is made: most recordings are whole, some can never be archived, and those must end
as a gap with the reason that is written here.
"""

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from storage.keys import rid
from tests.support.audio import header_only_wav, wav
from tests.support.catapult import SimulatedCatapult
from tests.support.imagicle import SimulatedImagicle
from tests.support.simulator import Call, Simulator
from tests.support.verba import SimulatedVerba
from tests.support.xivo import SimulatedXivo
from tests.support.yeastar import SimulatedYeastar

CAP = 3
"""`max_connections` of every source."""
PART = 5 * 1024 * 1024
"""`part_bytes` of every worker, the least that S3 allows."""
_LARGE = 2 * PART + 100_000  # bytes: two parts and a bit
_SPREAD = timedelta(hours=9)


@dataclass
class Known:
    """The truth about one recording."""

    call: Call
    sha256: str
    gap: str | None = None
    """The reason with which it must end as a gap; None where it must be held."""
    excuses: set[str] = field(default_factory=set)
    """Reasons with which it may end as a gap, because of a fault that struck it."""
    gone: bool = False
    """Whether the phone system lost it for good before it was archived."""


class People:
    """Make calls, change them, and remember the truth. Safe from any thread."""

    def __init__(self, dice: random.Random, planned: int) -> None:
        self.sites: dict[str, Simulator] = {
            "london-desk": SimulatedVerba(),
            "milan": SimulatedImagicle(),
            "hq": SimulatedYeastar(),
            "support": SimulatedXivo(),
            "cloud": SimulatedCatapult(),
        }
        self._dice = dice
        self._names = list(self.sites)
        self._lock = threading.Lock()
        self._number = 0
        self._planned = planned
        self._large = [wav(_LARGE / 8000, seed=n) for n in range(3)]
        self.known: dict[tuple[str, str], Known] = {}
        self.kinds: Counter[str] = Counter()
        for site in self.sites.values():
            if isinstance(site, SimulatedImagicle | SimulatedCatapult):
                site.largest_page = 80  # so that listings have pages to fail on

    @property
    def made(self) -> int:
        """How many calls there are."""
        return self._number

    def telephone(self) -> None:
        """Let one call end, at any of the sites."""
        self._number += 1
        number = self._number
        name = self._names[number % len(self._names)]
        site, dice = self.sites[name], self._dice
        started = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=dice.randrange(60, 1800))
        call = Call(number=number, started_at=started, seconds=float(dice.randrange(3, 50)))
        kind, gap = self._kind(site, call)
        self.kinds[kind] += 1
        listed, call.listed = call.listed, False  # until the truth is known
        site.add(call)
        known = Known(call, sha256(call.media).hexdigest(), gap)
        if call.state == "saving":
            known.excuses.add("media_missing")
        with self._lock:
            self.known[name, rid(call.id)] = known
        call.listed = listed

    def _kind(self, site: Simulator, call: Call) -> tuple[str, str | None]:
        roll = self._dice.random()
        call.media = wav(self._dice.uniform(0.1, 1.0), seed=call.number)
        if roll < 0.012:
            call.media = self._large[call.number % len(self._large)]
            return "large: in parts", None
        if roll < 0.025:
            call.media = header_only_wav()
            return "only a header of 44 bytes", None
        if roll < 0.035:
            call.media = b""  # set by Call itself otherwise
            call.media = f"<html><body>Please log in {call.number}</body></html>".encode()
            return "not audio", "not_audio"
        if roll < 0.04 and site.vendor == "imagicle":
            call.hash = "wrong"
            return "a wrong hash in the books", "hash_mismatch"
        if roll < 0.07:
            call.state = "saving"
            return "not finished at first", None
        if roll < 0.09:
            call.listed = False
            call.started_at -= self._dice.random() * _SPREAD
            return "listed late", None
        if roll < 0.15:
            call.started_at -= self._dice.random() * _SPREAD
            return "started hours ago", None
        return "plain", None

    def progress(self) -> None:
        """Let calls that were late or unfinished come along."""
        for known in self._some(40):
            known.call.listed = known.call.listed or not known.gone
            if known.call.state == "saving":
                known.call.state = "complete"

    def backwards(self) -> str | None:
        """Take a complete recording back to being saved; return its site."""
        for (site, _), known in self._pick():
            if known.call.state == "complete" and known.call.listed:
                known.call.state = "saving"
                known.excuses.add("media_missing")
                return site
        return None

    def vanish(self, *, for_good: bool) -> str | None:
        """Let a recording disappear between listing and download; return its site."""
        for (site, _), known in self._pick():
            if known.call.listed and self.sites[site].downloads[known.call.id] == 0 and known.gap is None:
                known.call.listed, known.call.state = False, "saving"
                known.gone = for_good
                known.excuses.add("media_missing")
                return site
        return None

    def settle_down(self) -> None:
        """Finish every call, and bring back what is not gone for good."""
        for known in self.all():
            known.call.state = "complete"
            known.call.listed = not known.gone

    def all(self) -> list[Known]:
        with self._lock:
            return list(self.known.values())

    def excuse(self, site: str, recording: str, reason: str) -> None:
        """Note that a fault struck a recording with which it may end as a gap."""
        known = self.known.get((site, rid(recording)))
        if known is not None:
            known.excuses.add(reason)

    def truth(self, source: str, name: str) -> set[str]:
        """Return the SHA-256 that the recording's media may have."""
        known = self.known.get((source, name))
        return set() if known is None or known.gap else {known.sha256}

    def _pick(self) -> list[tuple[tuple[str, str], Known]]:
        with self._lock:
            everything = list(self.known.items())
        recent = everything[-60:]
        self._dice.shuffle(recent)
        return recent

    def _some(self, count: int) -> list[Known]:
        everything = self.all()
        odd = [k for k in everything if not k.call.listed or k.call.state == "saving"]
        return odd[:count]
