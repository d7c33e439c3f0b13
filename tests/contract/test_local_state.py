"""State of one `callvault run`: the contract, and what the next run, or one at the same time, sees of it."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from storage.state import Pause, State, StateUnavailable
from storage.state_local import LocalState
from tests.contract.state_contract import DAY, StateContract, attempt
from tests.support.clock import FakeClock

ROOT = Path(__file__).parents[2]
HOLDER = """
import asyncio, sys
from pathlib import Path
from config.clock import SystemClock
from storage.state_local import LocalState

async def main():
    lease = await LocalState(Path(sys.argv[1]), "acme", SystemClock()).lease("poll:hq", 30)
    print(lease.fence, flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that does not exist yet."""
    return tmp_path / "new" / "state"


class TestLocalState(StateContract):
    @pytest.fixture
    def state(self, folder: Path, clock: FakeClock) -> State:
        return LocalState(folder, "acme", clock)


@pytest.fixture
def first(folder: Path, clock: FakeClock) -> LocalState:
    """Return the state of one run."""
    return LocalState(folder, "acme", clock)


@pytest.fixture
def second(folder: Path, clock: FakeClock) -> LocalState:
    """Return the state of another run of the same archive on the same machine."""
    return LocalState(folder, "acme", clock)


def kept_file(folder: Path) -> Path:
    """Return where the attempts and the pause of the source `hq` are kept."""
    return folder / "run-acme-hq.json"


async def test_a_second_run_sees_the_lease_of_the_first(first: LocalState, second: LocalState) -> None:
    """One run at a time has a lease; the next one's fence is greater though the clock stood still."""
    lease = await first.lease("poll:hq", 30)
    assert lease is not None
    assert await second.lease("poll:hq", 30) is None
    await lease.release()
    following = await second.lease("poll:hq", 30)
    assert following is not None
    assert following.fence == lease.fence + 1
    await following.release()
    await following.release()


async def test_archives_do_not_share_anything(first: LocalState, folder: Path, clock: FakeClock) -> None:
    """Another bucket's run in the same folder has leases, pauses and attempts of its own."""
    other = LocalState(folder, "other", clock)
    mine, theirs = await first.lease("poll:hq", 30), await other.lease("poll:hq", 30)
    assert mine is not None
    assert theirs is not None
    await first.save_attempt("hq", "a", attempt())
    assert await other.attempts("hq") == {}
    await mine.release()
    await theirs.release()


async def test_a_lease_ends_with_its_process(first: LocalState, folder: Path) -> None:
    """A run that is killed leaves its lock to the next one at once, and its fence counts."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        fence = int(holder.stdout.readline())
        assert await first.lease("poll:hq", 30) is None
        holder.kill()
        holder.wait(20)
    lease = await first.lease("poll:hq", 30)
    assert lease is not None
    assert lease.fence > fence
    await lease.release()


async def test_a_damaged_lock_file_is_a_lock_all_the_same(first: LocalState, folder: Path) -> None:
    """What stands in a lock file does not matter: the lease is granted, and its fence comes from the clock."""
    folder.mkdir(parents=True)
    (folder / "lock-acme-poll~3Ahq").write_bytes(b"\xff nonsense")
    lease = await first.lease("poll:hq", 30)
    assert lease is not None
    assert lease.fence == 1_772_712_000_000
    await lease.release()


async def test_the_next_run_knows_attempts_and_pauses(
    first: LocalState, second: LocalState, folder: Path, clock: FakeClock
) -> None:
    """Retry times and pauses outlive a run, in a file of its owner's alone; a change of one run is seen by another."""
    until = clock.now() + timedelta(hours=1)
    assert await second.attempts("hq") == {}
    await first.save_attempt("hq", "a", attempt())
    await first.pause("hq", until, "locked out")
    assert await second.attempts("hq") == {"a": attempt()}
    assert await second.paused("hq") == Pause(until, "locked out")
    assert kept_file(folder).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == ["run-acme-hq.json"]
    await second.forget_attempt("hq", "a")
    await second.unpause("hq")
    assert await first.attempts("hq") == {}
    assert await first.paused("hq") is None


async def test_the_next_run_knows_nothing_else(first: LocalState, second: LocalState, clock: FakeClock) -> None:
    """Watermark, held days, queue, permits, texts and notes end with the run; the bucket is read instead."""
    await first.set_watermark("hq", clock.now(), 1)
    await first.remember_held("hq", DAY, ["a"])
    await first.enqueue("hq", ["a"], 600)
    await first.stash("batch", "body", 600)
    await first.note("poll", {"listed": "1"})
    assert await first.acquire("hq", 1)
    assert await second.watermark("hq") is None
    assert await second.held("hq", DAY) is None
    assert await second.enqueued("hq") == 0
    assert await second.unstash("batch") is None
    assert await second.noted("poll") == {}
    assert await second.acquire("hq", 1)


async def test_the_watermark_comes_from_the_bucket(first: LocalState, clock: FakeClock) -> None:
    """Even a watermark set by this run is not told back: the bucket has it."""
    assert await first.set_watermark("hq", clock.now(), 1)
    assert await first.watermark("hq") is None


async def test_marks_and_texts_lapse(first: LocalState, clock: FakeClock) -> None:
    """After its time a stashed text is gone, and a recording may be enqueued again."""
    await first.stash("batch", "body", 60)
    await first.enqueue("hq", ["a"], 60)
    clock.advance(60)
    assert await first.unstash("batch") is None
    assert await first.enqueued("hq") == 0
    assert await first.enqueue("hq", ["a"], 60) == ["a"]


async def test_a_pace_lets_time_pass(first: LocalState, clock: FakeClock) -> None:
    """Time that went by is not waited for again, and is no credit for a burst later."""
    assert await first.reserve("hq", 2) == 0
    clock.advance(0.25)
    assert await first.reserve("hq", 2) == 0.25
    clock.advance(100)
    assert await first.reserve("hq", 2) == 0
    assert await first.reserve("hq", 2) == 0.5


async def test_old_attempts_are_forgotten(first: LocalState, clock: FakeClock) -> None:
    """An attempt that was due 30 days ago is dropped when another one is saved."""
    await first.save_attempt("hq", "old", attempt())
    clock.advance(31 * 86400)
    newer = attempt()
    newer = type(newer)(newer.first_try_at, 1, clock.now(), "error")
    await first.save_attempt("hq", "new", newer)
    assert await first.attempts("hq") == {"new": newer}


GOOD = {
    "first_try_at": "2026-03-05T12:00:00+01:00",
    "tries": 1,
    "not_before": "2026-03-05T12:00:00Z",
    "error": "e",
    "crashes": 0,
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"attempts": [1], "pause": [2]}',
        b'{"attempts": {"a": null}, "pause": {"until": null, "reason": "r"}}',
        b'{"pause": {"until": "2026-03-05T13:00:00Z"}}',
        b'{"pause": {"until": "2026-03-05T13:00:00", "reason": "no offset"}}',
        b'{"pause": {"until": "9999-12-31T23:59:59-10:00", "reason": "no such year"}}',
        *(
            json.dumps({"attempts": {"a": GOOD | change}}).encode()
            for change in (
                {"tries": "1"},
                {"crashes": None},
                {"error": 5},
                {"first_try_at": "yesterday"},
                {"not_before": 5},
                {"not_before": "0001-01-01T00:00:00+10:00"},
            )
        ),
    ],
)
async def test_foreign_content_counts_as_none(
    first: LocalState, folder: Path, clock: FakeClock, content: bytes
) -> None:
    """A file that is damaged or somebody else's is no error: it is empty, and replaced at the next change."""
    folder.mkdir(parents=True)
    kept_file(folder).write_bytes(content)
    assert await first.attempts("hq") == {}
    assert await first.paused("hq") is None
    await first.save_attempt("hq", "b", attempt())
    assert list(json.loads(kept_file(folder).read_text())["attempts"]) == ["b"]


async def test_what_can_be_read_of_a_damaged_file_is_used(first: LocalState, folder: Path) -> None:
    """One broken record does not take the others with it."""
    folder.mkdir(parents=True)
    kept_file(folder).write_text(json.dumps({"attempts": {"bad": 1, "good": GOOD}}))
    found = await first.attempts("hq")
    assert list(found) == ["good"]
    assert found["good"].first_try_at.isoformat() == "2026-03-05T11:00:00+00:00"


async def test_losing_the_files_loses_nothing_else(first: LocalState, folder: Path) -> None:
    """Removed in the middle of a run, the files count as empty and come back at the next change."""
    await first.save_attempt("hq", "a", attempt())
    kept_file(folder).unlink()
    assert await first.attempts("hq") == {}
    await first.save_attempt("hq", "b", attempt())
    assert await first.attempts("hq") == {"b": attempt()}


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, clock: FakeClock) -> None:
    """Where the folder cannot be made, the error names it and the setting to change."""
    (tmp_path / "file").write_text("in the way")
    state = LocalState(tmp_path / "file" / "state", "acme", clock)
    for asking in (state.lease("poll:hq", 30), state.save_attempt("hq", "a", attempt()), state.attempts("hq")):
        with pytest.raises(
            StateUnavailable, match=r"cannot use the folder .*file/state \(Not a directory\): set .*state_dir"
        ):
            await asking


async def test_a_lock_that_cannot_be_taken_is_an_error(first: LocalState, folder: Path) -> None:
    """A lock file that is a folder is reported, not taken for somebody's lease."""
    (folder / "lock-acme-poll~3Ahq").mkdir(parents=True)
    with pytest.raises(StateUnavailable, match="Is a directory"):
        await first.lease("poll:hq", 30)


async def test_nothing_is_left_of_a_lock_that_failed(
    first: LocalState, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while the fence is written is reported, and the lock is free again for the next try."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _disk_full)
        with pytest.raises(StateUnavailable, match="No space left"):
            await first.lease("poll:hq", 30)
    lease = await first.lease("poll:hq", 30)
    assert lease is not None
    await lease.release()


async def test_nothing_is_left_of_a_write_that_failed(
    first: LocalState, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while a change is written is reported; the file from before stays, no other beside it."""
    await first.save_attempt("hq", "a", attempt())
    before = kept_file(folder).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(json, "dump", _disk_full)
        with pytest.raises(StateUnavailable, match="No space left"):
            await first.save_attempt("hq", "b", attempt())
    assert kept_file(folder).read_bytes() == before
    assert len(list(folder.iterdir())) == 1


async def test_closing_needs_nothing(first: LocalState) -> None:
    """Closing returns, and the state can still be asked: there are no connections."""
    await first.aclose()
    assert await first.noted("poll") == {}


def _disk_full(*_: object, **__: object) -> datetime:
    raise OSError(28, "No space left on device")
