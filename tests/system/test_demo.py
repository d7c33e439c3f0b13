"""The demo, whole: simulated phone systems, embedded broker, embedded S3, the real worker and scheduler."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tasks.cli.command import app


def test_the_demo_shows_the_main_job_and_leaves_a_folder(tmp_path: Path) -> None:
    """All finished recordings are held but for the one whose hash is wrong; the folder has the bucket and the log."""
    folder = tmp_path / "out"
    result = CliRunner().invoke(app, ["demo", "--folder", str(folder)])
    assert result.exit_code == 0, result.output + (folder / "callvault.log").read_text()[-3000:]
    sidecars = [json.loads(p.read_text()) for p in folder.rglob("bucket/v1/recordings/**/*.json")]
    assert len(sidecars) == 5 * 15 - 1
    assert all((folder / "bucket" / s["media"]["key"]).stat().st_size == s["media"]["bytes"] for s in sidecars)
    (gap,) = folder.rglob("bucket/v1/gaps/**/*.json")
    assert json.loads(gap.read_text())["reason"] == "hash_mismatch"
    assert "hash_mismatch" in result.output
    assert '"schema": "callvault/recording/v1"' in result.output
    again = CliRunner().invoke(app, ["demo", "--folder", str(folder / "bucket")])
    assert again.exit_code == 2


def test_a_demo_that_takes_too_long_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops what it started, names the log and exits with 3."""
    monkeypatch.setattr("tasks.cli.demo._PATIENCE", 0.0)
    result = CliRunner().invoke(app, ["demo", "--folder", str(tmp_path / "out")])
    assert result.exit_code == 3
    assert "callvault.log" in result.output.replace("\n", "")
