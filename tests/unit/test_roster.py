"""The roster of a machine's workers: who is on it, for how long, and under which name."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from config.settings import Settings
from tasks import process
from tasks.roster import Place, at_work, enrol
from tests.support.clock import FakeClock
from tests.support.settings import settings
from tests.support.waiting import wait_for


@pytest.fixture
def told(tmp_path: Path) -> Settings:
    """Return settings whose `state_dir` is not there yet."""
    return settings(tmp_path / "state")


@pytest.fixture
def places() -> Iterator[list[Place]]:
    """Return a list of places that are given up at the end."""
    taken: list[Place] = []
    yield taken
    for place in taken:
        place.leave()


def files(told: Settings) -> list[Path]:
    """Return the roster's files."""
    return sorted((told.runtime.state_dir / "workers").iterdir())


def test_where_no_worker_ever_ran_there_is_none(told: Settings) -> None:
    """Looking makes no folder."""
    assert at_work(told) == []
    assert not told.runtime.state_dir.exists()


def test_a_worker_is_on_it_until_it_leaves(told: Settings, places: list[Place], clock: FakeClock) -> None:
    """Node, process and start are told; leaving twice is harmless."""
    places.append(enrol(told, "w@here", clock.now()))
    (worker,) = at_work(told)
    assert worker == places[0].worker
    assert (worker.node, worker.pid, worker.since) == ("w@here", os.getpid(), clock.now())
    places[0].leave()
    places[0].leave()
    assert at_work(told) == []


def test_each_worker_has_a_place_and_the_next_takes_a_free_one(
    told: Settings, places: list[Place], clock: FakeClock
) -> None:
    """Names are used again, so what is kept under them stays little; nothing but the owner may read the files."""
    first, second = enrol(told, "first@here", clock.now()), enrol(told, "second@here", clock.now())
    places += [first, second]
    assert first.worker.id != second.worker.id
    assert at_work(told) == [first.worker, second.worker]
    first.leave()
    assert at_work(told) == [second.worker]
    clock.advance(60)
    places.append(enrol(told, "third@here", clock.now()))
    assert places[-1].worker.id == first.worker.id
    assert at_work(told)[0].node == "third@here"
    assert at_work(told)[0].since == clock.now()
    assert [path.stat().st_mode & 0o777 for path in files(told)] == [0o600, 0o600]


def test_other_hosts_and_archives_that_share_the_folder_are_others(
    told: Settings, places: list[Place], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers may share a volume, and two configurations a `state_dir`: each speaks for its own workers."""
    places.append(enrol(told, "w@here", clock.now()))
    other = told.model_copy(update={"archive": told.archive.model_copy(update={"bucket": "another"})})
    assert at_work(other) == []
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere/../..")
    assert at_work(told) == []
    places.append(enrol(told, "w@elsewhere", clock.now()))
    assert at_work(told) == [places[-1].worker]
    assert len(files(told)) == 2, "the host's name cannot lead out of the folder"


def test_two_who_look_at_once_do_not_take_each_other_for_a_worker(
    told: Settings, places: list[Place], clock: FakeClock
) -> None:
    """A place that is free stays free while somebody looks at it."""
    places.append(enrol(told, "w@here", clock.now()))
    places[0].leave()
    with files(told)[0].open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert at_work(told) == []


DAMAGED = [
    "",
    "{",
    "[]",
    '{"id": "0123456789abcdef"}',
    '{"id": 7, "node": "w", "pid": 1, "since": "2026-03-05T12:00:00+00:00"}',
    '{"id": "../../etc/passwd", "node": "w", "pid": 1, "since": "2026-03-05T12:00:00+00:00"}',
    '{"id": "0123456789abcdef", "node": "w", "pid": 1, "since": "2026-03-05T12:00:00"}',
    '{"id": "0123456789abcdef", "node": "w", "pid": "x", "since": "2026-03-05T12:00:00+00:00"}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_file_that_cannot_be_read_counts_as_empty(
    told: Settings, places: list[Place], clock: FakeClock, text: str
) -> None:
    """A worker that is just writing it is not at work yet; one that takes the place gets a new name."""
    places.append(enrol(told, "w@here", clock.now()))
    (path,) = files(told)
    path.write_text(text)
    assert at_work(told) == []
    places[0].leave()
    places.append(enrol(told, "next@here", clock.now()))
    assert at_work(told) == [places[-1].worker]
    assert json.loads(path.read_text())["id"] == places[-1].worker.id != "../../etc/passwd"


HOLDER = """
import os, sys, time
from datetime import UTC, datetime
from pathlib import Path
from tasks.roster import enrol
from tests.support.settings import settings
place = enrol(settings(Path(sys.argv[1])), "killed@here", datetime.now(UTC))
child = os.fork()
if not child:
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""


def test_a_killed_worker_is_gone_though_its_child_lives(told: Settings) -> None:
    """A pool process that is stuck does not keep the place of the worker that it was forked from."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(told.runtime.state_dir)],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout
        child = int(holder.stdout.readline())
        assert [worker.pid for worker in at_work(told)] == [holder.pid]
        holder.kill()
        holder.wait()
        wait_for(lambda: not at_work(told), "the place is free")  # the child may just have been forked
        os.kill(child, 0)
        os.kill(child, signal.SIGKILL)


def test_a_worker_that_may_not_write_there_says_so_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not watched, and the log has the folder and the reason."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(process, "_settings", settings(tmp_path / "file"))
    monkeypatch.setattr(process, "_place", None)
    assert process.take_place("w@here") is None
    assert process.worker_id() is None
    (record,) = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert record["event"] == "worker_unwatched"
    assert str(tmp_path / "file") in record["detail"]


def test_a_worker_goes_by_the_name_of_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[Place]
) -> None:
    """The process that took a place, and those forked from it, know its id."""
    told = settings(tmp_path)
    monkeypatch.setattr(process, "_settings", told)
    monkeypatch.setattr(process, "_place", None)
    assert process.worker_id() is None
    taken = process.take_place("w@here")
    assert process._place
    places.append(process._place)
    assert process.worker_id() == taken == at_work(told)[0].id
    assert isinstance(at_work(told)[0].since, datetime)
