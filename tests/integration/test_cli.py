"""The verbs beside `run`: what they print, what they exit with, what bad input is told."""

import asyncio
import getpass
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import tasks.cli.backfill
import tasks.cli.common
import tasks.cli.run
from config.clock import SystemClock
from storage.state_redis import RedisState
from tasks.cli.command import app
from tasks.cli.progress import Bars, human, watching
from tests.integration.conftest import MakeSite
from tests.integration.test_run import calls
from tests.support.bench import FakeVendor
from tests.support.imagicle import SimulatedImagicle
from tests.support.valkey import Valkey
from tests.support.xivo import SimulatedXivo
from tests.support.yeastar import SimulatedYeastar
from worker.outcome import Fate, Outcome


def test_help_names_every_verb() -> None:
    """The verbs of the contract are there."""
    result = CliRunner().invoke(app, ["--help"])
    for verb in (
        "demo",
        "init",
        "check",
        "run",
        "up",
        "worker",
        "beat",
        "backfill",
        "retry",
        "hold",
        "health",
        "status",
    ):
        assert verb in result.output


def test_init_writes_a_file_and_never_overwrites_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is ./callvault.toml; what is there stays as it is, exit code 2."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["init"])
    assert result.exit_code == 0
    text = Path("callvault.toml").read_text()
    assert "[[sources]]" in text
    Path("callvault.toml").write_text("mine")
    result = CliRunner().invoke(app, ["init"])
    assert result.exit_code == 2
    assert "exists already" in result.output
    assert Path("callvault.toml").read_text() == "mine"
    result = CliRunner().invoke(app, ["init", "--config", str(tmp_path / "no" / "folder.toml")])
    assert result.exit_code == 2
    assert "cannot be written: No such file" in result.output


def test_all_mistakes_of_a_configuration_are_told_at_once(tmp_path: Path) -> None:
    """Each with file, key and what to write; no traceback; exit code 2."""
    config = tmp_path / "callvault.toml"
    config.write_text('[archive]\nbuckt = "x"\n[[sources]]\nname = "HQ"\nvendor = "yeaster"\nurl = "pbx"\n')
    result = CliRunner().invoke(app, ["run", "--config", str(config)])
    assert result.exit_code == 2
    for words in ("buckt", "bucket", "HQ", "yeastar", "url"):
        assert words in result.output
    assert "Traceback" not in result.output
    result = CliRunner().invoke(app, ["run"], env={"CALLVAULT_CONFIG": ""})
    assert result.exit_code == 2
    assert "callvault init" in result.output


def test_check_says_of_each_part_whether_it_works(make_site: MakeSite) -> None:
    """All well: exit code 0 and a line for each; plain http and what the store cannot do are notes."""
    site = make_site({"hq": SimulatedImagicle(calls("imagicle")), "b": SimulatedXivo([])})
    result = site.callvault("check")
    assert result.exit_code == 0, result.output
    assert (
        "ok      source hq (imagicle): logged in; the first page of the last 24 hours has 6 recording(s)"
        in result.output
    )
    assert "note: plain http" in result.output
    assert f"bucket {site.archive.bucket}: can be written" in result.output
    document = json.loads(site.callvault("check", "--json").stdout)
    assert document["ok"]
    assert len(document["checks"]) == 3
    assert site.listing() == []


def test_check_says_what_to_do_where_something_fails(make_site: MakeSite, valkey: Valkey) -> None:
    """A wrong password, a bucket that is not there, a broker that does not answer: exit code 4, and why."""
    site = make_site({"hq": SimulatedYeastar([])})
    site.sources["hq"].fault("answer", purpose="login", body=b'{"status":"Failed","errno":"20003"}')
    site.archive = site.archive.model_copy(update={"bucket": "nowhere-5550100"})
    site.broker = "redis://127.0.0.1:1/0"
    result = site.callvault("check")
    assert result.exit_code == 4
    assert result.output.count("FAILED") == 3
    assert "nowhere-5550100" in result.output
    assert "`callvault run` does without" in result.output
    site.broker = valkey.url
    result = site.callvault("check")
    assert "ok      broker: answers" in result.output


def test_status_shows_how_each_source_stands(make_site: MakeSite, valkey: Valkey) -> None:
    """Before anything, after a run, and with the state of a broker; a bucket that is down exits with 4."""
    site = make_site({"hq": SimulatedImagicle(calls("imagicle"))})
    assert "never archived" in site.callvault("status").output
    site.run()
    site.run()
    document = json.loads(site.callvault("status", "--json").stdout)["sources"]["hq"]
    assert document["gaps"] == 0
    assert document["watermark"]
    assert site.callvault("status").exit_code == 0
    valkey.flush()
    site.broker = valkey.url
    assert json.loads(site.callvault("status", "--json").stdout)["sources"]["hq"]["watermark"] == document["watermark"]
    site.broker = "redis://127.0.0.1:1/0"
    result = site.callvault("status")
    assert result.exit_code == 4
    assert "127.0.0.1:1" in result.output


def test_status_shows_what_a_phone_system_said_as_it_is(make_site: MakeSite, valkey: Valkey) -> None:
    """Brackets in an error are brackets, not an instruction to the table that shows them."""
    site = make_site({"hq": SimulatedXivo([])})
    valkey.flush()
    site.broker = valkey.url
    key = f"callvault:{site.archive.namespace}:note:poll:hq"
    with valkey.client() as client:
        client.hset(key, mapping={"at": "2026-03-05T10:00:00+00:00", "error": "[/a] said"})
    result = site.callvault("status")
    assert result.exit_code == 0, result.exception
    assert "[/a]" in result.output


def test_health_fails_where_nothing_runs(make_site: MakeSite, valkey: Valkey) -> None:
    """Without a broker, or with one and no worker, health exits with 4 and says why."""
    site = make_site({"hq": SimulatedXivo([])})
    result = site.callvault("health")
    assert result.exit_code == 4
    assert "callvault up" in result.output
    valkey.flush()
    site.broker = valkey.url
    document = json.loads(site.callvault("health", "--json").stdout)
    assert {check["name"]: check["ok"] for check in document["checks"]} == {
        "broker": True, "canary": False, "worker": True, "bucket": True,
    }  # fmt: skip


async def _sing(site_url: str, namespace: str) -> None:
    from tasks.liveness import sing

    state = RedisState(site_url, namespace, SystemClock())
    await sing(state, SystemClock())
    await state.aclose()


def test_health_is_well_when_a_worker_consumes(make_site: MakeSite, valkey: Valkey) -> None:
    """With a fresh canary all answers are good, exit code 0."""
    site = make_site({"hq": SimulatedXivo([])})
    valkey.flush()
    site.broker = valkey.url
    asyncio.run(_sing(valkey.url, site.archive.namespace))
    result = site.callvault("health")
    assert result.exit_code == 0, result.output
    assert "a worker was at work" in result.output


def test_health_can_be_asked_about_the_workers_of_this_machine_alone(make_site: MakeSite, valkey: Valkey) -> None:
    """For whoever starts them anew: neither a canary that nobody sends nor the bucket is a reason to."""
    site = make_site({"hq": SimulatedXivo([])})
    result = site.callvault("health", "--worker")
    assert result.exit_code == 0, "nor is a configuration without a broker, in which no worker could run"
    assert "callvault up" in result.output
    valkey.flush()
    site.broker = valkey.url
    result = site.callvault("health", "--worker", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "ok": True, "checks": [{"name": "worker", "ok": True, "detail": "none runs on this machine"}],
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["worker", "beat"])
def test_worker_and_beat_start_with_the_configuration_they_were_given(
    make_site: MakeSite, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """They refuse to start without a broker, in one sentence; with one they hand over to Celery."""
    site = make_site({"hq": SimulatedXivo([])})
    result = site.callvault(verb)
    assert result.exit_code == 4
    assert "no [broker] is configured" in result.output
    started: list[Any] = []
    monkeypatch.setattr("tasks.launch.run", lambda role: started.append((role, os.environ["CALLVAULT_CONFIG"])) or 0)
    site.broker = valkey.url
    assert site.callvault(verb).exit_code == 0
    assert started == [(verb, str(site.config))]


def test_up_hands_over_to_the_supervisor(make_site: MakeSite, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code is ours; a configured broker that evicts keys is refused before anything is started."""
    site = make_site({"hq": SimulatedXivo([])})
    monkeypatch.setattr("tasks.cli.serve.run_up", lambda settings, path: 0 if path == site.config else 1)
    assert site.callvault("up").exit_code == 0
    site.broker = valkey.url
    assert site.callvault("up").exit_code == 0
    with valkey.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            result = site.callvault("up")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 0)
    assert result.exit_code == 2
    assert "set `maxmemory-policy noeviction`" in result.output


def test_backfill_asks_for_a_span_and_looks_on(
    make_site: MakeSite, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The span goes into the queue; progress is told until everything in it is settled."""
    monkeypatch.setattr(tasks.cli.backfill, "_LOOK_EVERY", 0.0)
    site = make_site({"hq": SimulatedXivo([])})
    valkey.flush()
    site.broker = valkey.url
    sent: list[tuple[str, ...]] = []

    def sending(*words: str) -> None:
        sent.append(words)

        async def settle() -> None:
            state = RedisState(valkey.url, site.archive.namespace, SystemClock())
            fields = {"from": words[1], "to": words[2]}
            await state.note("backfill:hq", {**fields, "at": "2026-01-15T00:00:00+00:00", "done": ""})
            looks = 0
            while looks < 2:  # until the display has seen it half done
                looks += 1
                await asyncio.sleep(0.05)
            await state.note("backfill:hq", {**fields, "at": words[2], "done": "yes"})
            await state.aclose()

        import threading

        threading.Thread(target=lambda: asyncio.run(settle())).start()

    monkeypatch.setattr("tasks.cli.backfill.send_backfill", sending)
    span = ("--source", "hq", "--from", "2026-01-01", "--to", "2026-02-01")
    result = site.callvault("backfill", *span)
    assert result.exit_code == 0, result.output
    assert sent == [("hq", "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00")]
    assert "hq: everything before 2026-02-01 00:00:00Z is settled" in result.output
    monkeypatch.setattr("tasks.cli.backfill.send_backfill", lambda *words: sent.append(words))
    assert "asked for" in site.callvault("backfill", *span, "--detach").output
    assert json.loads(site.callvault("backfill", *span, "--detach", "--json").stdout)["done"] is False


def test_one_backfill_of_a_source_at_a_time(
    make_site: MakeSite, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another span is refused while one is not done; a broker that has forgotten it is told, not waited for."""
    monkeypatch.setattr("tasks.cli.backfill.send_backfill", lambda *_: None)
    site = make_site({"hq": SimulatedXivo([])})
    valkey.flush()
    site.broker = valkey.url
    assert (
        site.callvault("backfill", "--source", "hq", "--from", "2026-01-01", "--to", "2026-02-01", "--detach").exit_code
        == 0
    )
    result = site.callvault("backfill", "--source", "hq", "--from", "2025-01-01", "--to", "2025-02-01", "--detach")
    assert result.exit_code == 2
    assert "is not done yet" in result.output
    monkeypatch.setattr("tasks.cli.backfill.send_backfill", lambda *_: valkey.flush())
    result = site.callvault("backfill", "--source", "hq", "--from", "2026-01-01", "--to", "2026-02-01")
    assert result.exit_code == 4
    assert "has forgotten the backfill" in result.output


def test_backfill_needs_a_span_a_source_and_a_broker(make_site: MakeSite) -> None:
    """Each is told in a sentence."""
    site = make_site({"hq": SimulatedXivo([])})
    span = ("--from", "2026-01-01", "--to", "2026-02-01")
    assert site.callvault("backfill", "--source", "x", *span).exit_code == 2
    assert site.callvault("backfill", "--source", "hq", "--from", "2026-01-01").exit_code == 2
    result = site.callvault("backfill", "--source", "hq", *span)
    assert result.exit_code == 4
    assert "no [broker] is configured" in result.output


def test_the_demo_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a checkout there are no simulators; a folder of somebody's is never replaced."""
    (tmp_path / "mine").mkdir()
    result = CliRunner().invoke(app, ["demo", "--folder", str(tmp_path / "mine")])
    assert result.exit_code == 2
    assert "is no folder of a demo" in result.output
    monkeypatch.setattr("tasks.cli.demo._SIMULATORS", tmp_path / "nowhere")
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 4
    assert "in a checkout" in result.output


def test_progress_bars_move_with_the_work() -> None:
    """A bar for each source, with recordings, bytes and rate; none where nobody looks."""
    output = io.StringIO()
    bars = Bars(Console(file=output, force_terminal=True, width=120))
    recording = FakeVendor().add(1)
    with bars.shown:
        bars.planned("hq", 2)
        bars.planned("hq", 1)
        for _ in range(3):
            bars.settled("hq", recording, Outcome("rec-1", Fate.ARCHIVED, bytes=1500))
    assert "3/3" in output.getvalue()
    assert "4.5 kB" in output.getvalue()
    with watching(shown=False) as nobody:
        assert nobody is None
    with watching(shown=True) as somebody:
        assert isinstance(somebody, Bars)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB"), (3.2e12, "3.2 TB")]
)
def test_sizes_are_written_for_people(size: float, text: str) -> None:
    """Powers of a thousand."""
    assert human(size) == text


def test_on_a_terminal_a_run_shows_bars_and_logs_only_trouble(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars and log lines do not get into each other's way."""
    shown: list[bool] = []
    real = tasks.cli.run.watching

    def looking(*, shown_: bool) -> Any:
        shown.append(shown_)
        return real(shown=False)

    monkeypatch.setattr(tasks.cli.run, "watching", lambda *, shown: looking(shown_=shown))
    monkeypatch.setattr(tasks.cli.run, "on_terminal", lambda: True)
    site = make_site({"hq": SimulatedXivo(calls("xivo"))})
    result = site.callvault("run")
    assert shown == [True]
    assert "recording_archived" not in result.output


def test_a_signal_ends_a_verb_in_good_order() -> None:
    """SIGTERM cancels the work, cleaning up runs, and the exit code says 143."""
    import signal

    import typer

    cleaned = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(typer.Exit) as caught:
        tasks.cli.common.run_async(work())
    assert (caught.value.exit_code, cleaned) == (143, [True])


def test_work_that_cancels_itself_is_no_signal() -> None:
    """A cancellation from inside is not passed off as one."""

    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        tasks.cli.common.run_async(work())


def test_whoever_has_no_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of a container may be unknown to its system; what is put on record then has the number."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert tasks.cli.common.who().startswith(f"{os.getuid()}@")


def test_python_m_tasks_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m tasks` serves where the command is not on the path."""
    import runpy

    monkeypatch.setattr("sys.argv", ["callvault", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("tasks", run_name="__main__")
    assert caught.value.code == 0
    assert "backfill" in capsys.readouterr().out
