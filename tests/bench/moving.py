"""Moving recordings of five sizes, everybody in turn, several rounds; medians, and ratios within each round."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from tests.bench.contenders import Contender
from tests.bench.measure import Cost, Stand
from tests.bench.site import SOURCE, Work
from tests.bench.table import mean_table

Sizes = Mapping[int, int]
PLAN: Sizes = {8_000: 1500, 48_000: 1500, 500_000: 400, 5_000_000: 60, 60_000_000: 8}
QUICK: Sizes = {48_000: 40, 10_000_000: 2}
Say = Callable[[str], None]
_SLOW = 3  # the scripts take five times as long: they are given a third of the recordings


def moving(stand: Stand, contenders: Sequence[Contender], plan: Sizes, rounds: int, say: Say) -> None:
    """Measure and print. What starting and ending cost is measured with one recording, and taken off."""
    costs: dict[int, dict[str, list[Cost]]] = defaultdict(lambda: defaultdict(list))
    starts: dict[str, list[Cost]] = defaultdict(list)
    for _ in range(rounds):
        for contender in contenders:
            starts[contender.title].append(_once(stand, contender, 1, min(plan))[0])
        for size, count in plan.items():
            for contender in contenders:
                share = max(2, count // _SLOW) if contender.title.endswith("script") else count
                cost, moved = _once(stand, contender, share, size)
                costs[size][contender.title].append(_each(cost.less(_middle(starts[contender.title])), moved))
    say("what starting, one recording and ending cost, which is taken off below:")
    for title, found in starts.items():
        say(f"  {title:30} {median(c.cpu for c in found) * 1000:7.0f} ms of CPU")
    for size in plan:
        say("")
        mean_table(size, costs[size], say)


def _once(stand: Stand, contender: Contender, count: int, size: int) -> tuple[Cost, int]:
    work = Work.of(stand.url, count, size)
    stand.plan({SOURCE: work.source()})
    return contender.go(stand, work), count


def _middle(costs: Sequence[Cost]) -> Cost:
    return Cost(median(c.wall for c in costs), median(c.cpu for c in costs), 0)


def _each(cost: Cost, count: int) -> Cost:
    return Cost(cost.wall / count, cost.cpu / count, cost.peak, cost.server)
