"""Many requests at once, not too many."""

import asyncio

import pytest

from worker.abreast import abreast


async def test_results_come_in_order_and_never_too_many_at_once() -> None:
    """Whichever ends first."""
    busy, most = 0, 0

    async def work(number: int) -> int:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        for _ in range(10 - number):
            await asyncio.sleep(0)
        busy -= 1
        return -number

    assert await abreast(work, range(10), at_once=3) == [-number for number in range(10)]
    assert most == 3
    assert await abreast(work, []) == []


async def test_the_first_error_ends_the_others() -> None:
    """Nothing goes on behind the caller's back."""
    done: list[int] = []

    async def work(number: int) -> None:
        if number == 1:
            raise ValueError(number)
        await asyncio.sleep(3600)
        done.append(number)

    with pytest.raises(ValueError, match="1"):
        await abreast(work, range(5))
    assert done == []
