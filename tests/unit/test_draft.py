"""A recording's bytes on their way: one buffer, however large the recording and its pieces are."""

import hashlib

import pytest

from storage.memory import MemoryStore
from worker.draft import Draft

PART = 5 * 1024 * 1024


@pytest.mark.parametrize(
    "pieces",
    [[PART + 1, PART + 5000], [100, 3 * PART, 1], [PART, 1], [7] * 1000],
    ids=["grown", "many", "edge", "small"],
)
async def test_pieces_of_any_size_come_out_as_they_went_in(pieces: list[int]) -> None:
    """The sum of what was fed is what is published, with its SHA-256 and length."""
    store, fed = MemoryStore(), b""
    async with Draft(store, "k", "audio/wav", PART) as draft:
        for number, size in enumerate(pieces):
            chunk = bytes([number % 251]) * size
            fed += chunk
            await draft.feed(chunk)
        await draft.publish("k", {})
    assert await store.get("k", max_bytes=10**9) == fed
    assert (draft.size, draft.sha256) == (len(fed), hashlib.sha256(fed).hexdigest())


async def test_the_buffer_stays_about_one_part() -> None:
    """Fifty parts pass through a buffer of one."""
    async with Draft(MemoryStore(), "k", "audio/wav", PART) as draft:
        for _ in range(400):
            await draft.feed(b"\x01" * 65536 * 10)
        assert len(draft._buffer) <= PART + 65536 * 10
