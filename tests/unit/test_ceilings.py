"""What a source may cost, and what of it may be kept: values, rows, pages, ids, and our own credentials in them."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import worker.discovery
import worker.paging
from config.redact import Redactor
from storage.errors import StoreUnavailable
from storage.keys import rid
from storage.s3.answers import Page as S3Page
from storage.s3.answers import document, http_date
from storage.sidecar import CallFacts, Direction, GapReason
from tests.support.bench import NOW, Bench, make_bench
from worker.errors import BadAnswer
from worker.model import Page, Recording, Unreadable, Window
from worker.outcome import Report
from worker.passes import run_source
from worker.rest.decode import csv_of, json_of, xml_of
from worker.rest.hidden import Hidden
from worker.rows import MAX_ROW, fit
from worker.times import parse_iso
from worker.vendor import Vendor

SECRET = 'hunter2/"correct horse"'


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with one source, hq."""
    return make_bench(tmp_path)


# values


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (json_of, b"[" + b"{}," * 1_000_001 + b"{}]"),
        (xml_of, b"<a>" + b"<a/>" * 1_000_001 + b"</a>"),
        (xml_of, b"<a>" + b"<a" + b" b=''" * 1_000_001 + b"/></a>"),
        (lambda body, what: csv_of(body, frozenset("a"), what), b"a,b,c\n" + b",,\n" * 400_000),
    ],
    ids=["json", "elements", "attributes", "csv"],
)
def test_an_answer_of_a_million_values_is_refused(read: Callable[[bytes, str], Any], body: bytes) -> None:
    """Four bytes can become a few hundred of memory: what no page holds is refused before it is parsed."""
    with pytest.raises(BadAnswer, match="what: the answer holds more than 1000000 values"):
        read(body, "what")


@pytest.mark.parametrize("levels", [101, 1000, 100_000])
def test_deep_xml_is_refused(levels: int) -> None:
    """Rows nested in rows would be read once for each level."""
    with pytest.raises(BadAnswer, match="nested more than 100 levels deep"):
        xml_of(b"<verbacdr>" * levels + b"</verbacdr>" * levels, "what")
    assert xml_of(b"<a>" * 100 + b"</a>" * 100, "what").tag == "a"


@pytest.mark.parametrize("levels", [1000, 100_000])
def test_deep_json_is_refused(levels: int) -> None:
    """A thousand brackets, or a hundred thousand, are a bad answer."""
    with pytest.raises(BadAnswer, match="nested"):
        json_of(b'{"a":' * levels + b"1" + b"}" * levels, "what")


def test_faults_of_a_file_are_told_up_to_a_number() -> None:
    """A file of bad lines does not become a sentence for each."""
    _, faults = csv_of(b"a,b\n" + b"x\n" * 5000, frozenset("a"), "what")
    assert len(faults) == 1001
    assert faults[-1] == "4000 more lines cannot be read"


def test_what_is_quoted_of_a_body_has_no_secret_in_it() -> None:
    """An answer that repeats the request is quoted without the token, wherever the quotation ends."""
    hidden = Hidden(["a-token-of-30-characters-or-so"])
    for before in range(0, 80, 7):
        body = b"x" * before + b" a-token-of-30-characters-or-so"
        for read in (json_of, xml_of, lambda b, w, c: csv_of(b, frozenset("q"), w, c)):
            with pytest.raises(BadAnswer) as caught:
                read(body, "what", hidden.clean)
            assert "a-tok" not in str(caught.value)


def test_the_beginning_of_a_secret_is_not_shown_either() -> None:
    """Where a text ends in the middle of a secret, by our cut or the phone system's, that half is masked."""
    hidden = Hidden(["a-token-of-30-characters-or-so"])
    assert hidden.clean("sent a-token-of-30-char") == "sent ***"
    assert hidden.clean("sent a-to") == "sent a-to"


def test_the_words_about_a_time_quote_little_of_it() -> None:
    """A start of a megabyte does not come back as an error of a megabyte."""
    with pytest.raises(ValueError, match="is no date and time") as caught:
        parse_iso("2026-03-05" + "x" * 10**6)
    assert len(str(caught.value)) < 100


# ids and the log


def test_no_id_can_be_made_to_meet_another() -> None:
    """A short id is not written as the short form of a long one, whose hash anybody can compute."""
    for number in range(2000):
        long = "x" * 140 + "/" * 30 + str(number)
        written = rid(long)
        digits = written[-32:]
        if digits[:2] in ("20", "21", "22", "23", "24", "25", "26", "27", "28", "29"):
            break
    short = "x" * 140 + chr(int(digits[:2], 16)) + digits[2:]
    assert rid(short) != written
    assert rid(short) == "x" * 140 + "~" + hashlib.sha256(short.encode()).hexdigest()[:32]


def test_an_endless_id_costs_what_a_long_one_does() -> None:
    """Only the beginning of an id is written; ten megabytes of it are hashed and no more."""
    began = time.process_time()
    assert len(rid("\u00e9" * 5_000_000)) <= 173
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ["-" * 65536, "a-" * 32768, "token-" * 10922, "://" * 21845, "Bearer " * 9362])
def test_no_text_keeps_the_log_busy(text: str) -> None:
    """64 KiB of what looks like the beginning of a name are looked through in moments, not minutes."""
    began = time.process_time()
    Redactor([SECRET]).text(text)
    assert time.process_time() - began < 5


# rows


def recording(name: str, record: dict[str, Any], **more: Any) -> Recording:
    """Return a recording of an hour ago."""
    start = NOW - timedelta(hours=1)
    return Recording(id=name, call=CallFacts(started_at=start, ended_at=start, **more), record=record)


def test_a_row_as_it_should_be_is_kept_as_it_is() -> None:
    """Nothing is changed, nothing copied."""
    hidden = Hidden([SECRET, "1001"])
    rows = (recording("a", {"n": [1, "1001"]}, from_="1001"), Unreadable(None, "what", {"n": "1001"}))
    assert all(fit(row, hidden) is row for row in rows)
    nearly = recording("a", {"n": "backslashes"})
    assert fit(nearly, Hidden(["back\\slashes"])) is nearly


@pytest.mark.parametrize(
    "form",
    [SECRET, quote(SECRET, safe=""), base64.b64encode(f"api:{SECRET}".encode()).decode(), json.dumps(SECRET)],
    ids=["plain", "percent", "basic", "json"],
)
def test_a_credential_in_a_row_is_masked_and_noted(form: str) -> None:
    """A phone system that repeats our secret in a row puts it into no sidecar; the rest of the row stays."""
    row = recording("a", {"note": [f"<{form}>", 5, {form: None}], "n": 1}, from_=form, agent="Ada")
    clean = fit(row, Hidden([SECRET]))
    assert isinstance(clean, Recording)
    assert clean.record["n"] == 1
    assert clean.call.agent == "Ada"
    assert clean.notes == ("the phone system's record repeats a credential of ours, which was masked",)
    kept = json.dumps(clean.to_json())
    assert "hunter2" not in kept
    assert base64.b64encode(SECRET.encode()).decode()[:12] not in kept
    unreadable = fit(Unreadable("a", f"what {form}", {"n": form}), Hidden([SECRET]))
    assert isinstance(unreadable, Unreadable)
    assert (unreadable.id, unreadable.record) == ("a", {"n": unreadable.record["n"]})
    assert "hunter2" not in repr(unreadable)


def test_a_credential_as_an_id_is_nobodys_recording() -> None:
    """An id stands in keys; masked it would name nothing, so the row counts as one without an id."""
    row = fit(recording(f"a-{SECRET}", {}), Hidden([SECRET]))
    assert row == Unreadable(None, "the id of a row repeats a credential of ours", {})


@pytest.mark.parametrize(("name", "kept"), [("a", "a"), ("x" * 5000, None)])
def test_an_endless_row_is_left_out(name: str, kept: str | None) -> None:
    """A thousand rows wait in memory: one that no phone system prints becomes unreadable, and a hash of itself."""
    one, other = (fit(recording(name, {"x": "y" * MAX_ROW, "n": n}), Hidden([])) for n in (1, 2))
    assert isinstance(one, Unreadable)
    assert isinstance(other, Unreadable)
    assert one.id == other.id == kept
    assert one.record != other.record, "when the row changes it is news"
    assert len(json.dumps(one.record)) < 200
    assert fit(recording("a", {"x": "y" * 100_000}), Hidden([])) == recording("a", {"x": "y" * 100_000})


async def test_endless_and_telling_rows_end_as_gaps_and_sidecars(bench: Bench) -> None:
    """One pass: the endless row is a gap, the one with our secret in it is archived without, the good one as ever."""
    good, telling, endless = (bench.vendor.add(number) for number in range(3))
    telling.record["echo"] = "canary-secret"
    endless.record["echo"] = "x" * MAX_ROW
    report = await run_source(bench.services, bench.source)
    assert (report.archived, report.gaps, report.errors) == (2, 1, [])
    sidecar = await bench.sidecar(telling)
    assert sidecar.vendor_record["echo"] == "***"
    assert "repeats a credential" in sidecar.media.warnings[0]
    assert (await bench.sidecar(good)).media.warnings == ()
    keys = await bench.everything()
    assert [key for key in keys if "/gaps/" in key] == ["v1/gaps/source=hq/date=1970-01-01/rec-2.json"]


async def test_endless_details_are_a_gap(bench: Bench) -> None:
    """What a detail adds is held to the same size."""
    one = bench.vendor.add(1)
    bench.vendor.describes = lambda row: recording(row.id, {"x": "y" * MAX_ROW})
    await run_source(bench.services, bench.source)
    assert (await bench.gap(one)).reason is GapReason.VENDOR_ERROR


# pages


async def test_unreadable_rows_are_put_on_record_so_many_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that do not fit into one look hold the watermark and come with the next ones."""
    monkeypatch.setattr("worker.passes.LIMIT", 4)
    bench.vendor.unreadable = tuple(Unreadable(f"row-{n}", "no start", {"n": n}) for n in range(10))
    reports: list[Report] = [await run_source(bench.services, bench.source) for _ in range(4)]
    assert [report.gaps for report in reports] == [4, 4, 2, 0]
    marks = [report.watermark for report in reports]
    assert marks[0] == NOW - bench.source.lookback
    assert marks[-1] == NOW


async def test_a_listing_has_so_many_rows_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen is remembered, so a listing without end is an error, and of a long id a hash is enough."""
    monkeypatch.setattr(worker.paging, "MAX_ROWS", 5)
    pages = 0

    class Endless:
        info = make_info()

        async def list_page(self, window: Window, cursor: str | None) -> Page:
            nonlocal pages
            pages += 1
            return Page((recording(f"{pages}" + "x" * 1000, {}),), str(pages))

    vendor: Vendor = Endless()  # type: ignore[assignment]
    found: list[Page] = []
    with pytest.raises(BadAnswer, match="has more than 5 rows"):
        found.extend([page async for page in worker.paging.listed(vendor, Window(NOW - timedelta(days=1), NOW))])
    assert pages == 6


def make_info() -> Any:
    """Return what `worker.paging` asks of a vendor."""
    from tests.support.bench import FakeVendor

    return FakeVendor.info


# the store's answers


@pytest.mark.parametrize(
    "text",
    ["Fri, 31 Dec 9999 23:59:59 -1400", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "soon", ""],
)
def test_dates_beyond_all_dates_are_none(text: str) -> None:
    """A store's clock that cannot be read is not known."""
    assert http_date(text) is None


@pytest.mark.parametrize(
    ("field", "told"), [("LastModified", "9999-12-31T23:59:59-14:00"), ("LastModified", "soon"), ("Size", "9" * 5000)]
)
def test_figures_beyond_all_figures_are_trouble_that_passes(field: str, told: str) -> None:
    """A listing with such a row is refused in a sentence."""
    page = S3Page(document(f"<A><B><{field}>{told}</{field}></B></A>".encode(), "A"))
    (row,) = page.rows("B")
    with pytest.raises(StoreUnavailable, match=f"unreadable {field}"):
        page.time(row, field) if field == "LastModified" else page.number(row, field)


def test_a_listing_of_too_many_tags_is_refused() -> None:
    """Four bytes a tag would become a gigabyte."""
    with pytest.raises(StoreUnavailable, match="more than 200000 XML tags"):
        document(b"<A>" + b"<B/>" * 200_001 + b"</A>", "A")


def test_a_recording_that_was_kept_is_read_back_or_is_none() -> None:
    """What an older version or a stranger kept counts as absent."""
    good = recording("a", {"n": 1}).to_json()
    assert Recording.kept(json.loads(json.dumps(good))) == recording("a", {"n": 1})
    bad: list[Any] = [
        None,
        [],
        {},
        5,
        {**good, "id": 5},
        {**good, "record": []},
        {**good, "call": {}},
        {**good, "notes": 5},
    ]
    bad += [{**good, "readiness": "soon"}, {**good, "claimed_hash": ["a"]}, {**good, "media": 5}]
    bad += [{**good, "call": {**good["call"], "started_at": told}} for told in (None, "soon", "2026-03-05T10:00:00")]
    bad += [
        {name: value for name, value in good.items() if name != left}
        for left in good
        if left not in ("media", "expected_bytes")
    ]
    assert [Recording.kept(each) for each in bad] == [None] * len(bad)


@pytest.mark.parametrize("secret", ["inbound!", "internal", "2026-03-05", "readiness", "direction", "started_at"])
def test_a_password_that_is_a_word_of_ours_stops_no_source(secret: str) -> None:
    """What a row is kept in is callvault's own: it is neither masked nor made unreadable."""
    call = CallFacts(started_at=NOW, direction=Direction.INTERNAL, to=f"x {secret}")
    row = Recording(id="a", call=call, record={"note": secret})
    clean = fit(row, Hidden([secret]))
    assert isinstance(clean, Recording)
    assert clean.call == call.model_copy(update={"to": "x ***"})
    assert clean.record == {"note": "***"}
