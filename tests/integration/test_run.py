"""`callvault run` on each phone system: real HTTP on both sides, the command line as its user calls it."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage.errors import StoreRefused, StoreUnavailable
from storage.keys import Keys, rid, utc_date
from tests.integration.conftest import MakeSite
from tests.support.audio import mp3, wav
from tests.support.catapult import SimulatedCatapult
from tests.support.imagicle import SimulatedImagicle
from tests.support.simulator import Call, Simulator
from tests.support.verba import SimulatedVerba
from tests.support.xivo import SimulatedXivo
from tests.support.yeastar import SimulatedYeastar

VENDORS = [SimulatedVerba, SimulatedImagicle, SimulatedYeastar, SimulatedXivo, SimulatedCatapult]
TELLS_DIRECTION = {"verba", "imagicle", "yeastar", "catapult"}
EXTENSION = {"imagicle": ("mp3", "audio/mpeg")}


def calls(vendor: str, count: int = 6) -> list[Call]:
    """Return calls of the last day whose media differ."""
    now = datetime.now(UTC).replace(microsecond=0)
    made = []
    for number in range(1, count + 1):
        direction = ("inbound", "outbound")[number % 2]
        made.append(
            Call(
                number=number,
                started_at=now - timedelta(hours=20, minutes=-7 * number),
                seconds=10 + number,
                direction=direction,
                from_="5550100" if direction == "inbound" else "1001",
                to="1001" if direction == "inbound" else "5550101",
                media=mp3(seed=number) if vendor == "imagicle" else wav(0.3, seed=number),
            )
        )
    return made


@pytest.mark.parametrize("kind", VENDORS, ids=lambda kind: kind.vendor)
def test_every_finished_recording_is_archived_once(make_site: MakeSite, kind: type[Simulator]) -> None:
    """Key, bytes, SHA-256, UTC start, parties and direction are right; a second run downloads nothing again."""
    site = make_site({"hq": kind(calls(kind.vendor))})
    simulator = site.sources["hq"]
    code, report = site.run()
    assert (code, report["archived"], report["errors"]) == (0, 6, [])
    ext, content_type = EXTENSION.get(kind.vendor, ("wav", "audio/wav"))
    for call in simulator.finished():
        sidecar = site.sidecar("hq", call)
        day = utc_date(call.started_at)
        media = sidecar["media"]
        assert media["key"] == Keys().media("hq", day, rid(call.id), ext)
        assert media["content_type"] == content_type
        assert site.read(media["key"]) == call.media
        assert media["sha256"] == hashlib.sha256(call.media).hexdigest()
        assert media["bytes"] == len(call.media)
        told = sidecar["call"]
        assert datetime.fromisoformat(told["started_at"]) == call.started_at
        assert (told["from"], told["to"]) == (call.from_, call.to)
        assert told["direction"] == (call.direction if kind.vendor in TELLS_DIRECTION else "unknown")
        assert (sidecar["recording_id"], sidecar["vendor"]) == (call.id, kind.vendor)
        assert sidecar["vendor_record"]
    code, report = site.run()
    assert (code, report["archived"], report["held"]) == (0, 0, 6)
    assert set(simulator.downloads.values()) == {1}
    assert len(site.listing()) == 12


@pytest.mark.parametrize("kind", VENDORS, ids=lambda kind: kind.vendor)
def test_a_recording_that_turns_up_late_is_archived(make_site: MakeSite, kind: type[Simulator]) -> None:
    """It started before others that are held already; inside lookback it is found all the same."""
    late, *rest = calls(kind.vendor)
    late.listed = False
    site = make_site({"hq": kind([late, *rest])})
    assert site.run()[1]["archived"] == 5
    late.listed = True
    code, report = site.run()
    assert (code, report["archived"], report["held"]) == (0, 1, 5)
    assert site.sidecar("hq", late)["recording_id"] == late.id


@pytest.mark.parametrize("kind", VENDORS, ids=lambda kind: kind.vendor)
def test_one_recordings_fault_never_stops_the_others(make_site: MakeSite, kind: type[Simulator]) -> None:
    """A body cut each time leaves that one pending, exit code 3; once the fault is over the next run archives it."""
    made = calls(kind.vendor)
    site = make_site({"hq": kind(made)})
    site.sources["hq"].fault("truncate", recording=made[2].id)
    code, report = site.run()
    assert (code, report["archived"], report["pending"], report["gaps"]) == (3, 5, 1, 0)
    site.sources["hq"].faults.clear()
    code, report = site.run()
    assert (code, report["archived"], report["held"]) == (0, 1, 5)


def test_all_five_at_once_and_one_of_them_down(make_site: MakeSite) -> None:
    """A source that refuses its password never keeps the others from being archived; the exit code says 4."""
    site = make_site({kind.vendor: kind(calls(kind.vendor)) for kind in VENDORS})
    site.sources["xivo"].fault("status", purpose="any", status=401)
    code, report = site.run()
    assert code == 4
    assert report["archived"] == 24
    assert report["sources"]["xivo"]["errors"]
    assert {name for name, figures in report["sources"].items() if figures["archived"] == 6} == {
        "verba", "imagicle", "yeastar", "catapult",
    }  # fmt: skip


def test_the_caps_of_a_source_hold(make_site: MakeSite) -> None:
    """Never more than max_connections requests at a time, listing and downloads together."""
    site = make_site({"hq": SimulatedCatapult(calls("catapult", 30))}, extra={"hq": {"max_connections": 3}})
    assert site.run()[1]["archived"] == 30
    assert site.sources["hq"].most_at_once <= 3


def test_only_the_sources_asked_for(make_site: MakeSite) -> None:
    """--source chooses, and an unknown name exits with 2 naming those there are."""
    site = make_site({"a": SimulatedXivo(calls("xivo")), "b": SimulatedXivo(calls("xivo"))})
    code, report = site.run("--source", "b")
    assert (code, list(report["sources"])) == (0, ["b"])
    result = site.callvault("run", "--source", "c")
    assert result.exit_code == 2
    assert "no such source; the configuration has a, b" in result.output


def test_a_span_is_archived_exactly(make_site: MakeSite) -> None:
    """--from and --to are call start times, from inclusive, to exclusive."""
    made = calls("imagicle")
    site = make_site({"hq": SimulatedImagicle(made)})
    span = ("--from", made[1].started_at.isoformat(), "--to", made[3].started_at.isoformat())
    code, report = site.run(*span)
    assert (code, report["listed"], report["archived"]) == (0, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "2026-01-01"], "go together"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "is not before"),
        (["--from", "yesterday", "--to", "2026-01-01"], "write a time such as"),
        (["--from", "2026-01-01T00:00:00", "--to", "2026-01-02"], "has no offset"),
    ],
)
def test_a_span_that_makes_no_sense_is_refused(make_site: MakeSite, arguments: list[str], words: str) -> None:
    """Exit code 2 and a sentence that says what to write."""
    site = make_site({"hq": SimulatedXivo([])})
    result = site.callvault("run", *arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_without_json_a_line_for_each_source(make_site: MakeSite) -> None:
    """People get figures and errors in plain words; gaps on record are told apart from new ones."""
    made = calls("imagicle")
    made[0].hash = "wrong"
    site = make_site({"hq": SimulatedImagicle(made)})
    result = site.callvault("run")
    assert result.exit_code == 3
    assert "hq: 6 listed, 5 archived, 0 held before, 0 pending, 1 gaps (1 on record)" in result.output
    result = site.callvault("run")
    assert result.exit_code == 0
    assert "0 gaps (1 on record)" in result.output


def test_a_bucket_that_is_not_there_exits_with_4(make_site: MakeSite) -> None:
    """Nothing is downloaded, and the sentence names the bucket."""
    site = make_site({"hq": SimulatedXivo(calls("xivo"))})
    site.archive = site.archive.model_copy(update={"bucket": "nowhere-5550100"})
    code, report = site.run()
    assert code == 4
    assert "nowhere-5550100" in report["errors"][0]
    assert not site.sources["hq"].downloads
    result = site.callvault("run")
    assert "nowhere-5550100" in result.output


def test_an_unreachable_phone_system_exits_with_4(make_site: MakeSite) -> None:
    """The sentence names the source and says what to look at."""
    site = make_site({"hq": SimulatedXivo([])})
    site.sources["hq"].stop()
    code, report = site.run()
    assert code == 4
    assert "hq" in report["errors"][0]
    assert "could not connect" in report["errors"][0]
    assert "could not connect" in site.callvault("run").output


def test_two_runs_of_one_source_do_not_meet(make_site: MakeSite) -> None:
    """The second says that another is under way, and exits with 3."""
    import asyncio

    from config.clock import SystemClock
    from storage.state_local import LocalState

    site = make_site({"hq": SimulatedXivo(calls("xivo"))})
    state = LocalState(site.folder / "state", site.archive.namespace, SystemClock())
    lease = asyncio.run(state.lease("run-hq", 60))
    assert lease is not None
    code, report = site.run()
    assert code == 3
    assert "under way" in report["errors"][0]
    asyncio.run(lease.release())
    assert site.run()[0] == 0


def test_a_state_dir_that_cannot_be_used_is_told_in_a_sentence(make_site: MakeSite) -> None:
    """Exit code 4 and what to do, for `run`, `check` and `up`; never a traceback."""
    site = make_site({"hq": SimulatedVerba(calls("verba"))})
    state = site.folder / "state"
    state.mkdir()
    (state / f"lock-{site.archive.namespace}-run-hq").mkdir()  # root may write anywhere: so something is in the way
    for name in ("sessions", "valkey"):
        (state / name).write_text("in the way")
    code, report = site.run()
    assert code == 4
    assert "state" in report["errors"][0]
    for verb in ("check", "up"):
        result = site.callvault(verb)
        assert result.exit_code == 4
        assert "set [runtime] state_dir" in result.output


@pytest.mark.parametrize("span", [("0001-01-01", "9999-12-31"), ("2026-01-01", "9999-12-31T23:00:00-05:00")])
def test_times_out_of_this_world_are_refused(make_site: MakeSite, span: tuple[str, str]) -> None:
    """A span is between 1971 and 2100."""
    site = make_site({"hq": SimulatedXivo([])})
    result = site.callvault("run", "--from", span[0], "--to", span[1])
    assert result.exit_code == 2
    assert "between 1971 and 2100" in result.output


def test_without_the_right_to_list_uploads_recordings_are_archived_all_the_same(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tidying up is not what `run` is for; a bucket that does not answer is another matter."""

    async def refused(_: Any) -> int:
        raise StoreRefused("ListMultipartUploads is not allowed")

    async def away(_: Any) -> int:
        raise StoreUnavailable("the bucket does not answer")

    site = make_site({"hq": SimulatedXivo(calls("xivo"))})
    monkeypatch.setattr("tasks.cli.run.clean_up", refused)
    assert site.run()[1]["archived"] == 6
    monkeypatch.setattr("tasks.cli.run.clean_up", away)
    code, report = site.run()
    assert (code, report["errors"]) == (4, ["the bucket does not answer"])
    assert "does not answer" in site.callvault("run").output


def test_every_reason_for_a_gap_that_a_phone_system_can_give(make_site: MakeSite) -> None:
    """Error pages, empty bodies, missing or forbidden media and failed states end as gaps with their reasons."""
    made = calls("catapult", 8)
    site = make_site({"hq": SimulatedCatapult(made)}, extra={"hq": {"max_recording_bytes": 100_000}})
    simulator = site.sources["hq"]
    simulator.fault("answer", recording=made[0].id, body=b"<html>Sign in</html>")
    simulator.fault("answer", recording=made[1].id, body=b"")
    simulator.fault("status", recording=made[2].id, status=404)
    simulator.fault("status", recording=made[3].id, status=403)
    simulator.fault("redirect", recording=made[4].id, headers={"Location": "http://127.0.0.1:1/elsewhere"})
    made[5].state = "error"
    made[6].media = wav(20)
    code, report = site.run()
    assert code == 3
    assert (report["archived"], report["gaps"], report["pending"]) == (1, 7, 0), report
    reasons = {gap["recording_id"]: gap["reason"] for gap in site.gaps()}
    assert reasons == {
        made[0].id: "not_audio",
        made[1].id: "empty",
        made[2].id: "media_missing",
        made[3].id: "forbidden",
        made[4].id: "foreign_origin",
        made[5].id: "vendor_error",
        made[6].id: "too_large",
    }
    code, report = site.run()
    assert (code, report["gaps"], report["gaps_on_record"]) == (0, 0, 7)


def test_the_secrets_reach_nothing_that_is_written(make_site: MakeSite) -> None:
    """No key or body in the bucket and no line of output holds a secret, not even at DEBUG."""
    site = make_site({kind.vendor: kind(calls(kind.vendor)) for kind in VENDORS})
    site.sources["verba"].fault("status", status=500)
    result = site.callvault("run", "--log-level", "debug")
    written = result.output + "".join(site.listing()) + "".join(
        site.read(key).decode("latin-1") for key in site.listing() if key.endswith(".json")
    )  # fmt: skip
    secrets = [
        value
        for simulator in site.sources.values()
        for key, value in simulator.settings().items()
        if key in ("password", "token", "secret", "api_key")
    ]
    assert len(secrets) >= 6
    assert not [secret for secret in secrets if secret in written]
    state = "".join(p.read_text() for p in (site.folder / "state").rglob("*.json") if p.parent.name != "sessions")
    assert not [secret for secret in secrets if secret in state]


def test_one_document_and_nothing_else_on_standard_output(make_site: MakeSite) -> None:
    """--json is for programs."""
    site = make_site({"hq": SimulatedXivo(calls("xivo"))})
    result = site.callvault("run", "--json")
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["sources"]["hq"] == {
        "listed": 6, "archived": 6, "held": 0, "pending": 0, "gaps": 0, "gaps_on_record": 0,
        "bytes": document["bytes"], "errors": [],
    }  # fmt: skip
