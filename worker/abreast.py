"""Many requests at once, but not too many: what all long work over the bucket does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

AT_ONCE = 16


async def abreast(work: Callable[[A], Awaitable[B]], items: Iterable[A], at_once: int = AT_ONCE) -> list[B]:
    """Return what the work makes of each item, in their order. The first error ends the others and is raised."""
    rows = list(enumerate(items))
    waiting = iter(rows)
    made: dict[int, B] = {}

    async def one_by_one() -> None:
        for place, item in waiting:
            made[place] = await work(item)

    tasks = [asyncio.create_task(one_by_one()) for _ in range(min(at_once, len(rows)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [made[place] for place in sorted(made)]
