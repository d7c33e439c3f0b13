"""A tiny run of `make bench`: that it works and prints what it promises, not how fast anything is."""

import os
import shutil
from pathlib import Path

import pytest

from tests.bench.contenders import Crew, everybody
from tests.bench.held import held
from tests.bench.measure import Stand
from tests.bench.moving import moving
from tests.bench.site import SOURCE
from tests.bench.table import lines


def test_everybody_moves_the_same_recordings(tmp_path: Path) -> None:
    """Each contender that can be had here moves recordings that go up in parts, and has a row in the table."""
    told: list[str] = []
    chosen = ["limit", "script", "run", "workers", *(["rclone"] if shutil.which("rclone") else [])]
    with Stand() as stand, Crew(tmp_path / "crew", stand, {SOURCE: {}}, 2) as crew:
        contenders = everybody(tmp_path, crew, chosen)
        moving(stand, contenders, {9_000_000: 2}, 1, told.append)
        assert stand.ask("stats")["asked"]["s3 put"] > 0
    text = "\n".join(told)
    for contender in contenders:
        assert text.count(contender.title) == 2, text
    assert "CPU/rclone" in text


def test_what_is_held_plays_no_part_in_what_a_poll_costs(tmp_path: Path) -> None:
    """Requests to phone system and bucket are the same over ten thousand held recordings as over a million."""
    told: list[str] = []
    with Stand() as stand:
        held(stand, tmp_path / "held", told.append, (10_000, 1_000_000))
    rows = [line.split() for line in told[2:]]
    assert len(rows) == 6, told
    assert [row[-4:-2] for row in rows[:3]] == [row[-4:-2] for row in rows[3:]], told


def test_the_server_is_given_nothing_of_the_developers(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS settings of whoever runs the benchmark reach none of the contenders."""
    from tests.bench.site import environment

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    assert not [name for name in environment() if name.startswith("AWS_")]
    assert "AWS_SECRET_ACCESS_KEY" in os.environ


def test_a_table_is_in_line() -> None:
    """First column to the left, the others to the right, as wide as they must be."""
    told: list[str] = []
    lines(("", "rate"), [("a long name", "1"), ("b", "1000")], told.append)
    assert told == ["             rate", "a long name     1", "b            1000"]
