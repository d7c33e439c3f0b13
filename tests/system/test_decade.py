"""Ten years of one archive, a step a day: what was promised is kept, and what is over is gone, with certificates."""

import random
from datetime import timedelta
from pathlib import Path

from storage.holds import Scope
from tests.support.decade import Terms, World, midnight

QUEUES = ("trading", "support", "sales")
NUMBERS = ("+442070000001", "+442070000002", "+390600000003")
TERMS = (  # what the policy becomes over the years; it also becomes shorter, which must shorten nothing
    Terms("120d", {"trading": "1y"}),
    Terms("120d", {"trading": "2y", "support": "200d"}),
    Terms("60d", {"trading": "1y"}),
    Terms("1y"),
    Terms("90d", {"sales": "20d", "support": "3y"}),
)
DAYS = 3653


async def test_a_decade_keeps_every_promise_and_nothing_longer(tmp_path: Path) -> None:
    """Arrivals, growing and shrinking policies, matters, erasures and daily expiry: nothing goes early or while held,
    nothing stays past its date without a reason, and each deletion has one complete certificate.
    """
    dice = random.Random(11)
    world = World(tmp_path, TERMS[0])
    began = world.now
    names = [f"matter-{number}" for number in range(60)]
    for day in range(DAYS):
        world.archive.clock.advance((midnight((began + timedelta(days=day + 1)).date()) - world.now).total_seconds())
        if dice.random() < 0.07:
            await world.arrive(dice.choice(QUEUES), dice.choice(NUMBERS), days_late=dice.choice((0, 0, 0, 1.5, 40)))
        if dice.random() < 1 / 300:
            await world.adopt(dice.choice(TERMS))
            if dice.random() < 0.7:
                await world.grow()
        if dice.random() < 1 / 80 and names:
            await world.place(names.pop(), _scope(dice, world))
        if dice.random() < 1 / 90 and world.matters:
            await world.release(dice.choice(sorted(world.matters)))
        if dice.random() < 1 / 40 and world.known:
            await world.erase(dice.choice(world.due() or sorted(world.known)))
        if day % 91 == 90:
            report = await world.audit()
            assert report.reported == {}, report.findings
        await world.expire()
    world.close()
    assert min(world.figures.values()) > 0, world.figures  # or something was not tried at all
    assert world.figures["destroyed"] > world.figures["archived"] / 2


def _scope(dice: random.Random, world: World) -> Scope:
    """Return what a dispute may be about."""
    kind = dice.randrange(4)
    there = sorted(name for name, promised in world.known.items() if promised.gone is None)
    if kind == 0 and there:
        return Scope(recordings=tuple(f"hq/{name}" for name in dice.sample(there, min(3, len(there)))))
    if kind == 1:
        return Scope(number=dice.choice(NUMBERS))
    if kind == 2:
        return Scope(queue=dice.choice(QUEUES), from_=world.now - timedelta(days=200), to=world.now)
    return Scope(from_=world.now - timedelta(days=30), to=world.now + timedelta(days=30))
