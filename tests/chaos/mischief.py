"""What can go wrong at each boundary, as one weighted table, and how each is done.

An act returns at once; what must end after a while is left with the campaign as an appointment. What took place is
counted by whoever did it (store, simulators, fleet), because an armed fault that meets no request is none.
"""

import random
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
import redis

from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.chaos.people import People
from tests.chaos.store import FaultyStore
from tests.support.simulator import Fault
from tests.support.valkey import Valkey
from worker.steps import Step

Later = Callable[[float, Callable[[], None]], None]
"""Makes an appointment: in so many seconds, do that."""

LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>User</form></body></html>"
_FOREIGN = {"Location": "http://127.0.0.2:9/elsewhere"}

EXCUSES: Mapping[str, str] = {
    "403": "forbidden",
    "404": "media_missing",
    "redirect to another origin": "foreign_origin",
    "login page with status 200": "not_audio",
    "an empty body": "empty",
}
"""With which reason a recording may end as a gap when its media met this fault."""

_APPLICANT = 25.0  # seconds for a worker to see that it cannot serve
_SLOW = {"stall", "drip"}  # they hold a connection until somebody gives up


@dataclass(frozen=True)
class Wrong:
    """A fault of a phone system, in the simulator's terms."""

    kind: str
    purposes: tuple[str, ...]
    most: int = 2
    """How many requests in a row it may meet."""
    more: Mapping[str, Any] = field(default_factory=dict)


ANY = ("login", "list", "detail", "media")
PHONE: dict[str, Wrong] = {
    "500": Wrong("status", ANY, 3, {"status": 500}),
    "503": Wrong("status", ANY, 3, {"status": 503}),
    "429 with Retry-After in seconds": Wrong("status", ANY, 4, {"status": 429, "headers": {"Retry-After": "1"}}),
    "429 with Retry-After as a date": Wrong(
        "status", ANY, 2, {"status": 429, "headers": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}}
    ),
    "429 without a word": Wrong("status", ("list", "media"), 1, {"status": 429}),
    "429 with a limit's reset": Wrong("status", ANY, 2, {"status": 429, "headers": {"X-RateLimit-Reset": "1"}}),
    "401 in mid-run": Wrong("status", ("list", "detail", "media"), 1, {"status": 401}),
    "403": Wrong("status", ("media",), 1, {"status": 403}),
    "404": Wrong("status", ("media",), 1, {"status": 404}),
    "reset": Wrong("reset", ANY, 3),
    "truncated": Wrong("truncate", ("media",), 2),
    "chunked without an end": Wrong("cut_chunked", ("media",), 2),
    "cut, no length announced": Wrong("until_close", ("media",), 2),
    "whole, no length announced": Wrong("until_close", ("media",), 1, {"after": 0}),
    "gzip nobody asked for": Wrong("gzip", ("media",), 2),
    "gzip cut short": Wrong("cut_gzip", ("media",), 2),
    "login page with status 200": Wrong("answer", ("list", "media"), 1, {"body": LOGIN_PAGE}),
    "an empty body": Wrong("answer", ("media",), 1, {"body": b""}),
    "JSON where audio should be": Wrong("answer", ("media",), 1, {"body": b'{"error": "busy"}'}),
    "not what this API gives": Wrong("answer", ("list", "detail"), 1, {"body": b"[[[[[[[[{"}),
    "redirect to another origin": Wrong("redirect", ("media",), 1, {"headers": _FOREIGN}),
    "an answer that lingers": Wrong("linger", ANY, 9),
    "stall": Wrong("stall", ("media",), 1),
    "one byte now and then": Wrong("drip", ("media",), 1),
    "a listing that fails on page seven": Wrong("status", ("list",), 1, {"status": 500, "skip": 6}),
}


class PhoneTrouble:
    """The whims of one phone system: called for each request, returns what goes wrong with it, if anything."""

    def __init__(self, dice: random.Random, share: float, *, heavy: bool) -> None:
        self._dice = dice
        self._share = share
        self._table = {name: wrong for name, wrong in PHONE.items() if heavy or wrong.kind not in _SLOW}

    def __call__(self, purpose: str, recording: str | None) -> Fault | None:
        """Decide by the dice; a fault for several requests in a row goes on with the next of its purpose."""
        del recording
        if self._dice.random() >= self._share:
            return None
        fitting = {name: wrong for name, wrong in self._table.items() if purpose in wrong.purposes}
        if not fitting:
            return None
        weights = [0.15 if wrong.kind in _SLOW else 1.0 for wrong in fitting.values()]
        name = self._dice.choices(list(fitting), weights)[0]
        wrong = fitting[name]
        return Fault(wrong.kind, purpose, times=self._dice.randint(1, wrong.most), name=name, **wrong.more)


class Mischief:
    """Does what `choose` finds; `heavy` leaves out what takes long to get over, for short campaigns."""

    def __init__(
        self, people: People, s3: FaultyStore, valkey: Valkey, fleet: Fleet, ledger: Ledger, dice: random.Random,
        later: Later, *, heavy: bool,
    ) -> None:  # fmt: skip
        self._people, self._s3, self._valkey, self._fleet = people, s3, valkey, fleet
        self._ledger, self._dice, self._later = ledger, dice, later
        self._broker_busy = False
        light: list[tuple[float, Callable[[], None]]] = [
            (0.8, self._kill_child),  # each holds a source up until the lease of the dead one's batch is over
            (2.2, self._order),
            (0.5, self._flush),  # each costs all sources the eight seconds after which no permit is forgotten
            (0.5, self._worker_signal),
            (0.8, self._beat_signal),
            (1.0, self._cut_broker),
            (0.8, self._slow_broker),
            (2.0, self._backwards),
            (1.5, self._vanish),
            (0.6, self._skew),
            (0.5, self._shift),
        ]
        weighty: list[tuple[float, Callable[[], None]]] = [
            (0.5, self._freeze_child),
            (0.2, self._restart_with_data),
            (0.2, self._restart_without_data),
            (0.5, self._half_open),
            (0.4, self._out_of_memory),
            (0.1, self._eviction),
            (0.3, self._third_worker),
        ]
        self._table = light + (weighty if heavy else [])

    def strike(self) -> None:
        """Do one thing, by the dice."""
        weights = [weight for weight, _ in self._table]
        (_, act) = self._dice.choices(self._table, weights)[0]
        act()

    # phone systems

    def _backwards(self) -> None:
        if self._people.backwards():
            self._ledger.struck("phone system", "a state that goes backwards")

    def _vanish(self) -> None:
        if self._people.vanish(for_good=self._dice.random() < 0.05):
            self._ledger.struck("phone system", "vanished between listing and download")

    def _shift(self) -> None:
        for _ in range(3):  # newest first: what is listed meanwhile moves to the next page
            self._people.telephone()
        self._ledger.struck("phone system", "calls that shift the pages")

    # the archive

    def _skew(self) -> None:
        self._s3.skewed = True
        self._later(0.7, self._unskew)

    def _unskew(self) -> None:
        self._s3.skewed = False

    # processes

    def _kill_child(self) -> None:
        self._fleet.strike_child(signal.SIGKILL)

    def _freeze_child(self) -> None:
        child = self._fleet.strike_child(signal.SIGSTOP)
        if child is not None:
            self._later(3, lambda: _resume(child))

    def _order(self) -> None:
        missed = self._fleet.steps_missed()
        steps = missed if missed and self._dice.random() < 0.7 else list(Step)
        self._fleet.order(self._dice.choice(steps), whole_worker=self._dice.random() < 0.1)

    def _worker_signal(self) -> None:
        workers = self._fleet.workers()
        if len(workers) > 1:
            number = self._dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT])
            self._fleet.strike(self._dice.choice(workers), number)

    def _beat_signal(self) -> None:
        beats = [m for m in self._fleet.members if m.role == "beat"]
        self._fleet.strike(self._dice.choice(beats), self._dice.choice([signal.SIGKILL, signal.SIGTERM]))

    def _third_worker(self) -> None:
        if len(self._fleet.workers()) < 3:
            self._fleet.add("worker")
            self._ledger.struck("process", "a third worker joins")

    # the broker

    def _flush(self) -> None:
        self._on_broker("FLUSHALL", lambda client: client.flushall())

    def _cut_broker(self) -> None:
        self._on_broker("all connections cut", lambda client: client.client_kill_filter(_type="normal", skipme=True))

    def _slow_broker(self) -> None:
        self._through_proxies("slow answers", "slow", self._dice.uniform(2, 6))

    def _half_open(self) -> None:
        self._through_proxies("half-open connections", "swallow", self._dice.uniform(4, 15))

    def _through_proxies(self, name: str, mode: Any, seconds: float) -> None:
        member = self._dice.choice([m for m in self._fleet.members if m.role == "worker"])
        proxy = member.proxy
        if proxy.mode == "pass":
            proxy.delay = 0.2
            proxy.mode = mode
            self._ledger.struck("broker", name)
            self._later(seconds, lambda: setattr(proxy, "mode", "pass"))

    def _restart_with_data(self) -> None:
        if self._broker_busy:  # it would come back with its policy put right
            return
        self._valkey.restart(keep_data=True)
        self._ledger.struck("broker", "restart with its data")

    def _restart_without_data(self) -> None:
        if self._broker_busy:
            return
        self._valkey.restart(keep_data=False)
        self._ledger.struck("broker", "restart without its data")

    def _out_of_memory(self) -> None:
        if self._broker_busy:  # without a limit of memory, an evicting server is none
            return
        self._broker_busy = True
        self._on_broker("out of memory", lambda client: client.config_set("maxmemory", "100kb"))
        self._later(3, self._memory_again)

    def _memory_again(self) -> None:
        self._on_broker("", lambda client: client.config_set("maxmemory", "0"))
        self._broker_busy = False

    def _eviction(self) -> None:
        """Set the policy that loses messages, and see that a worker refuses to start on it."""
        if self._broker_busy:
            return
        self._broker_busy = True
        self._on_broker("eviction turned on by mistake", _evicting)
        applicant = self._fleet.applicant()
        self._later(_APPLICANT, lambda: self._settled(applicant))

    def _settled(self, applicant: subprocess.Popen[bytes]) -> None:
        try:
            code = applicant.wait(_APPLICANT)
        except subprocess.TimeoutExpired:
            code = None
            self._fleet.dismiss(applicant)
        if code in (None, 0):
            self._ledger.breach("other", "a worker starts on a broker that evicts queued work")
        self._on_broker("", lambda client: client.config_set("maxmemory-policy", "noeviction"))
        self._on_broker("", lambda client: client.config_set("maxmemory", "0"))
        self._broker_busy = False

    def _on_broker(self, name: str, act: Callable[[redis.Redis], Any]) -> None:
        with self._valkey.client() as client:
            act(client)
        if name:
            self._ledger.struck("broker", name)


def _evicting(client: redis.Redis) -> None:
    client.config_set("maxmemory", "500mb")
    client.config_set("maxmemory-policy", "allkeys-lru")


def _resume(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return
