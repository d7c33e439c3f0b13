"""One campaign: people telephone, workers archive, everything goes wrong, then it calms down and the books are audited.

Chance decides what happens when, by the seed; what it meets depends on the machine. So a seed makes a campaign
much like the last one with it, not the same to the instruction.
"""

import heapq
import itertools
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from config.events import Event
from config.load import load
from tasks.celery_settings import celery_settings
from tasks.names import HOUSEKEEPING, POLL
from tests.chaos.audit import Audit, audit
from tests.chaos.fleet import ROOT, Fleet, environment
from tests.chaos.ledger import Ledger
from tests.chaos.mischief import EXCUSES, Mischief, PhoneTrouble
from tests.chaos.people import CAP, PART, People
from tests.chaos.store import FaultyStore, bucket_of
from tests.support.clock import FakeClock
from tests.support.s3 import eyes, moto, new_bucket
from tests.support.site import Site
from tests.support.valkey import Valkey
from worker.vendors import vendor_keys

_TRACE = re.compile(r"^Traceback[^\n]*\n(?:[ \t].*\n|\n)*.*$", re.MULTILINE)
_TICK = 0.05
_POLLS_EVERY = 4.0  # seconds; besides what the schedulers send
_CALM = 150.0  # seconds without anything settled after which what is left never will
_IGNORING = 0.7  # from this share of the campaign on, the store ignores If-None-Match


@dataclass(frozen=True)
class Plan:
    """How long, how much, and by which dice."""

    seed: int
    minutes: float
    calls: int
    acts_per_second: float
    """How often something is done to processes, broker and calls."""
    share: float
    """Of all requests to the phone systems and to the archive, how many go wrong."""
    faults: int
    """How many there are to be; where they are still fewer, the campaign goes on for up to half as long again."""
    heavy: bool
    """Whether faults that take long to get over are among them."""


@dataclass(frozen=True)
class Outcome:
    """What a campaign came to."""

    plan: Plan
    ledger: Ledger
    audit: Audit
    most_at_once: dict[str, int]
    logins: dict[str, int]
    calm_seconds: float
    steps_missed: list[str]
    bugs: list[str]
    """Lines of the log that tell of something unforeseen."""


class Campaign:
    """Use `run` once. Everything lies below `folder`."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._dice = random.Random(plan.seed)
        self._ledger = Ledger()
        self._people = People(random.Random(plan.seed + 1), plan.calls)
        self._s3 = FaultyStore(self._ledger, self._people.truth, random.Random(plan.seed + 2))
        self._appointments: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._struck = dict.fromkeys(self._people.sites, 0)
        self._next_poll = 0.0

    def run(self, say: Callable[[str], None]) -> Outcome:
        """Run it and audit what came out; `say` is told in a line now and then how it goes."""
        with moto(self._s3.around) as url, Valkey(self._folder / "broker") as valkey:
            for site in self._people.sites.values():
                site.start()
            try:
                self._site = self._installation(url, valkey)
                fleet = Fleet(self._folder / "fleet", environment(self._site.environ, self._site.config), valkey.port,
                              self._ledger, self._dice)  # fmt: skip
                with fleet, self._sender():
                    return self._act(fleet, valkey, say)
            finally:
                for site in self._people.sites.values():
                    site.stop()

    def _installation(self, url: str, valkey: Valkey) -> Site:
        few = {"lookback": "12h", "settle": "1s", "max_connections": CAP, "schedule": "* * * * *"}
        extra = {name: dict(few) for name in self._people.sites}
        site = Site(self._folder, new_bucket(url, versioned=True), self._people.sites, {}, extra, broker=valkey.url,
                    runtime={"processes": 3, "part_bytes": PART})  # fmt: skip
        site.write()
        return site

    def _sender(self) -> Celery:
        """Return what asks for polls beside the schedulers."""
        settings = load(self._site.config, vendor_keys(), {**os.environ, **self._site.environ})
        self._client = Celery("campaign", set_as_current=False)
        self._client.conf.update(celery_settings(settings, FakeClock().now()))
        return self._client

    def _act(self, fleet: Fleet, valkey: Valkey, say: Callable[[str], None]) -> Outcome:
        for role in ("worker", "worker", "beat", "beat"):
            fleet.add(role)
        mischief = Mischief(self._people, self._s3, valkey, fleet, self._ledger, self._dice, self._later,
                            heavy=self._plan.heavy)  # fmt: skip
        self._s3.share = self._plan.share
        for site in self._people.sites.values():
            site.whim = PhoneTrouble(random.Random(self._dice.random()), self._plan.share, heavy=self._plan.heavy)
        for _ in range(self._plan.calls // 5):
            self._people.telephone()
        seconds = self._plan.minutes * 60
        self._storm(fleet, mischief, seconds * _IGNORING, self._plan.calls * _IGNORING, say)
        fleet.stop("worker")
        self._s3.ignores_conditions = True  # as if the store had been replaced: workers try it out at their start
        fleet.go_on()
        self._storm(fleet, mischief, seconds * (1 - _IGNORING), self._plan.calls, say)
        calm = self._calm(fleet, valkey, say)
        fleet.stop()
        self._collect()
        left = audit(self._site.archive, self._people, self._ledger)
        return Outcome(
            self._plan, self._ledger, left,
            {name: site.most_at_once for name, site in self._people.sites.items()},
            {name: site.count("login") for name, site in self._people.sites.items()},
            calm,
            [s.value for s in fleet.steps_missed()],
            list(_bugs(fleet.logs)),
        )  # fmt: skip

    def _storm(
        self, fleet: Fleet, mischief: Mischief, seconds: float, calls: float, say: Callable[[str], None]
    ) -> None:
        began, first = time.monotonic(), self._people.made
        next_fault, next_word = began + 1, began + 20
        while (now := time.monotonic()) < began + seconds or self._too_few(calls, now - began):
            share = min(1.0, (now - began) / seconds)
            while self._people.made < first + (calls - first) * share:
                self._people.telephone()
            while next_fault <= now:
                mischief.strike()
                next_fault += self._dice.expovariate(self._plan.acts_per_second)
            self._tick(fleet)
            if now >= next_word:
                next_word += 20
                say(self._how_it_goes())
            time.sleep(_TICK)
        while self._people.made < calls:  # an act may have taken long
            self._people.telephone()

    def _too_few(self, calls: float, seconds: float) -> bool:
        """Tell whether the last part of the campaign is to go on."""
        last = calls == self._plan.calls
        return last and self._ledger.total < self._plan.faults and seconds < self._plan.minutes * 60 * (1.5 - _IGNORING)

    def _calm(self, fleet: Fleet, valkey: Valkey, say: Callable[[str], None]) -> float:
        """End all faults and wait until nothing is left to be done; return how many seconds that took."""
        began = time.monotonic()
        for _, _, act in self._appointments:
            act()
        self._appointments.clear()
        fleet.countermand()
        self._s3.calm()
        for site in self._people.sites.values():
            site.whim = None
            site.faults.clear()
        self._people.settle_down()
        valkey.flush()  # retries are due hours from now: a flush costs only time, and here it saves it
        next_word, next_look, left, gives_up = began + 20, began, len(self._people.known), began + _CALM
        while left and time.monotonic() < gives_up:
            self._tick(fleet)
            if time.monotonic() >= next_look:
                next_look += 1
                if (now_left := len(self._unsettled())) < left:
                    left, gives_up = now_left, time.monotonic() + _CALM
            if time.monotonic() >= next_word:
                next_word += 20
                say(f"calm: {self._how_it_goes()}, {len(self._unsettled())} to go")
            time.sleep(_TICK)
        self._client.send_task(HOUSEKEEPING)
        ends = time.monotonic() + 60
        while time.monotonic() < ends and self._uploads():
            time.sleep(_TICK)
        return time.monotonic() - began

    def _tick(self, fleet: Fleet) -> None:
        now = time.monotonic()
        while self._appointments and self._appointments[0][0] <= now:
            heapq.heappop(self._appointments)[2]()
        fleet.tend()
        self._people.progress()
        self._collect()
        if now >= self._next_poll:
            self._next_poll = now + _POLLS_EVERY
            for name in self._people.sites:
                try:
                    self._client.send_task(POLL, [name])
                except (OperationalError, redis.RedisError):
                    break  # the broker has its own troubles; the schedulers go on

    def _collect(self) -> None:
        """Count the faults that phone systems met since the last look."""
        for name, site in self._people.sites.items():
            fresh = site.struck[self._struck[name] :]
            self._struck[name] += len(fresh)
            for kind, purpose, recording in fresh:
                self._ledger.struck("phone system", kind)
                if purpose == "media" and recording is not None and kind in EXCUSES:
                    self._people.excuse(name, recording, EXCUSES[kind])

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._appointments, (time.monotonic() + seconds, next(self._numbers), act))

    def _settled_rids(self) -> set[tuple[str, str]]:
        return {(source, rid) for kind, source, rid in _names(self._site) if kind in ("recordings", "gaps")}

    def _unsettled(self) -> list[tuple[str, str]]:
        settled = self._settled_rids()
        return [key for key, known in list(self._people.known.items()) if not known.gone and key not in settled]

    def _uploads(self) -> list[Any]:
        found = eyes(self._site.archive).list_multipart_uploads(Bucket=self._site.archive.bucket)
        return list(found.get("Uploads", []))

    def _how_it_goes(self) -> str:
        settled = len(self._settled_rids())
        faults = f"{self._ledger.total} faults of {self._ledger.kinds} kinds"
        return f"{self._people.made} recordings, {settled} settled, {faults}"


def _names(site: Site) -> list[tuple[str, str, str]]:
    """Return kind, source and rid of every sidecar and gap record."""
    found = []
    for key in list(bucket_of(site.archive.bucket)):
        if key.endswith(".json"):
            _, kind, source, *_, name = key.split("/")
            found.append((kind, source.removeprefix("source="), name.removesuffix(".json")))
    return found


def _bugs(logs: list[Path]) -> list[str]:
    """Return what tells of something unforeseen: our own event, and tracebacks through our code outside of the log."""
    found = []
    for path in logs:
        told = path.read_text(errors="replace")
        bugs = (line for line in told.splitlines() if f'"{Event.BUG}"' in line)
        found += [f"{path.name}: {line[:500]} ... {line[-2500:]}" for line in bugs]  # its last words say what it was
        for trace in _TRACE.findall(told):
            if any(f"{ROOT / name}/" in trace for name in ("config", "storage", "worker", "tasks")):
                found.append(f"{path.name}: {trace[-1000:]}")
    return found
