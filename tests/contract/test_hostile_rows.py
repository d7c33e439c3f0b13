"""Whatever a phone system lists, what is good beside it is archived, and nothing of it is lost or misplaced."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.keys import rid
from storage.sidecar import GapRecord, Sidecar
from tests.support.audio import wav
from tests.support.hostile import NOW, START, VALUES, VENDORS, WINDOW, Hostile, Row, hostile
from worker.errors import SourceError
from worker.model import Readiness, Recording
from worker.passes import run_source
from worker.rest.client import Reply

EXAMPLES = int(os.environ.get("FUZZ", "25"))
"""Examples per vendor; a thousand and more by hand, with the variable FUZZ."""

KEY = re.compile(
    r"v1/(recordings|gaps|quarantine)/source=hq/date=(\d{4}-\d\d-\d\d)/(?P<rid>[A-Za-z0-9._~-]{1,180})\.(json|wav)",
    re.ASCII,
)
few = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 25, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(params=sorted(VENDORS))
def vendor(request: pytest.FixtureRequest) -> str:
    """Return one vendor after the other."""
    name: str = request.param
    return name


@st.composite
def pages(draw: st.DrawFn, vendor: str) -> tuple[list[str], list[Any]]:
    """Return the ids of good rows, and a page in which they stand among hostile ones."""
    told = VENDORS[vendor]
    good = [told.good(f"good-{number}", START + timedelta(minutes=number)) for number in range(3)]
    bad: list[Any] = []
    for number in range(draw(st.integers(1, 4))):
        row = told.good(f"bad-{number}", START + timedelta(minutes=number))
        for name in draw(st.lists(st.sampled_from(told.fields), min_size=1, max_size=3, unique=True)):
            row[name] = draw(VALUES)
            if draw(st.integers(0, 9)) == 0:
                del row[name]
        bad.append(row if told.only_text or draw(st.integers(0, 9)) else draw(VALUES))
    if draw(st.booleans()):
        twin = draw(st.sampled_from(bad))
        bad.append({**twin, "type": "other"} if isinstance(twin, dict) else twin)
    rows = draw(st.permutations(good + bad))
    return [row[told.identity] for row in good], rows


def examine(vendor: str, rows: list[Any], look: Callable[[Hostile], Awaitable[None]]) -> None:
    """Run one example on a loop of its own."""

    async def whole() -> None:
        with hostile(vendor, rows) as source:
            async with source.services:
                await look(source)

    asyncio.run(whole())


async def audit(source: Hostile) -> tuple[dict[str, Sidecar], dict[str, GapRecord]]:
    """Check keys and bodies of everything in the bucket; return sidecars and gap records by recording id."""
    objects = await source.objects()
    sidecars: dict[str, Sidecar] = {}
    gaps: dict[str, GapRecord] = {}
    for key, body in objects.items():
        found = KEY.fullmatch(key)
        assert found, key
        if not key.endswith(".json"):
            continue
        json.loads(body.decode("utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        kept: Any
        if found[1] == "recordings":
            kept = Sidecar.model_validate_json(body)
            assert objects[kept.media.key] == wav(0.01)
            assert kept.media.key.rpartition(".")[0] == key.rpartition(".")[0]
            assert kept.recording_id not in sidecars
            sidecars[kept.recording_id] = kept
        else:
            kept = GapRecord.model_validate_json(body)
            gaps[kept.recording_id] = kept
        assert rid(kept.recording_id) == found["rid"]
    return sidecars, gaps


def test_hostile_rows_cost_themselves_alone(vendor: str) -> None:
    """Good rows are archived; a hostile one ends as held, gap, pending or an error that is told; never a bug."""

    @few
    @given(page=pages(vendor))
    def tried(page: tuple[list[str], list[Any]]) -> None:
        good, rows = page

        async def look(source: Hostile) -> None:
            recordings, unreadable = await source.listed()
            report = await run_source(source.services, source.source, WINDOW)
            assert not [error for error in report.errors if "unexpected" in error], report.errors
            sidecars, gaps = await audit(source)
            assert set(good) <= set(sidecars)
            pending = await source.services.state.attempts("hq")
            assert not [attempt.error for attempt in pending.values() if "unexpected" in attempt.error]
            for recording in recordings:
                settling = recording.ended_by(NOW) + source.source.settle > NOW
                waits = rid(recording.id) in pending or recording.readiness is Readiness.NOT_YET or settling
                assert recording.id in sidecars or recording.id in gaps or waits, recording
            for row in unreadable:
                assert row.id is None or row.id in gaps or row.id in sidecars or row.id in {r.id for r in recordings}
            assert len(report.errors) >= bool([row for row in unreadable if row.id is None])
            assert json.dumps(report.public())
            again = await run_source(source.services, source.source, WINDOW)
            assert again.archived == 0
            assert not [error for error in again.errors if "unexpected" in error], again.errors

        examine(vendor, rows, look)

    tried()


def test_any_body_is_a_page_or_an_error_with_a_name(vendor: str) -> None:
    """Whatever bytes come in place of a listing, the connector returns a page or raises one of `worker.errors`."""
    sane = VENDORS[vendor].page([VENDORS[vendor].good("good", START)])
    damage = st.tuples(st.integers(0, len(sane)), st.integers(0, 20), st.binary(max_size=20)).map(
        lambda told: sane[: told[0]] + told[2] + sane[told[0] + told[1] :]
    )

    @few
    @given(body=damage | st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()))
    def tried(body: bytes) -> None:
        async def look(source: Hostile) -> None:
            usual = source.call

            async def answer(method: str, path: str, **asked: Any) -> Reply:
                reply = await usual(method, path, **asked)
                return reply if path.endswith("get_random") else Reply(200, {}, body, reply.url)

            source.desk.rest.call = answer  # type: ignore[method-assign]
            try:
                page = await source.desk.vendor.list_page(WINDOW, None)
            except SourceError as error:
                str(error).encode()
            else:
                json.dumps([r.to_json() for r in page.recordings], ensure_ascii=False).encode()

        examine(vendor, [], look)

    tried()


@pytest.mark.parametrize("apart", [timedelta(0), timedelta(minutes=1), timedelta(days=20)])
async def test_one_id_twice_is_one_recording(vendor: str, apart: timedelta) -> None:
    """Two rows with one id but different content make one recording: the first row's, whole."""
    told = VENDORS[vendor]
    first: Row = told.good("twin", START) | ({"type": "Inbound"} if told.only_text else {"n": 1})
    second: Row = told.good("twin", START + apart) | ({"type": "Outbound"} if told.only_text else {"n": 2})
    with hostile(vendor, [first, second]) as source:
        async with source.services:
            report = await run_source(source.services, source.source, WINDOW)
            assert (report.archived, report.gaps) == (1, 0)
            assert len(report.errors) == (1 if vendor == "imagicle" else 0), "it announces how many there are"
            sidecars, _ = await audit(source)
            assert list(sidecars) == ["twin"]


async def test_ids_that_look_alike_are_kept_apart(vendor: str) -> None:
    """Ids that differ in case, normal form, a trailing dot, or that were made to meet have a key each."""
    crafted = rid("x" * 150 + "/" * 300)
    ids = ["rec-a", "REC-A", "rec-a.", "r\u00e9c", "re\u0301c", "rec~2Da", "rec-a.json", "a" * 200, "a" * 201, crafted]
    rows = [VENDORS[vendor].good(name, START + timedelta(seconds=n)) for n, name in enumerate(ids)]
    if vendor == "imagicle":  # its details are asked for by id and compared in any case
        rows = [row for row in rows if row["id"] != "REC-A"]
    with hostile(vendor, rows) as source:
        async with source.services:
            report = await run_source(source.services, source.source, WINDOW)
            assert (report.archived, report.gaps, report.errors) == (len(rows), 0, [])
            sidecars, _ = await audit(source)
            assert set(sidecars) == {row[VENDORS[vendor].identity] for row in rows}


def test_what_is_listed_survives_being_kept(vendor: str) -> None:
    """A recording of any making is the same after it went through a batch in the state."""

    @few
    @given(page=pages(vendor))
    def tried(page: tuple[list[str], list[Any]]) -> None:
        async def look(source: Hostile) -> None:
            for recording in (await source.listed())[0]:
                assert Recording.kept(json.loads(json.dumps(recording.to_json()))) == recording

        examine(vendor, page[1], look)

    tried()
