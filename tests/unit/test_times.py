"""Times as phone systems write them come out as aware UTC, or as a clear refusal."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from worker.model import Window
from worker.times import end_of, epoch_of, hms, iso_duration, local_span, local_text, local_to_utc, parse_iso, start_of

PARIS = ZoneInfo("Europe/Paris")
NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)


def utc(*parts: int) -> datetime:
    """Return the UTC time of a year, month, day and so on."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type] # parts are year to second


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-03-31 16:44:26", utc(2016, 3, 31, 14, 44, 26)),  # summer
        ("2026-01-15 00:30:00", utc(2026, 1, 14, 23, 30)),  # winter, another day in UTC
        (" 2026-01-15 00:30:00 ", utc(2026, 1, 14, 23, 30)),
    ],
)
def test_local_time_becomes_utc(text: str, expected: datetime) -> None:
    """A printed local time is read with the offset its zone had that day."""
    assert local_to_utc(text, PARIS) == (expected, None)


def test_the_repeated_hour_is_taken_the_first_time_and_noted() -> None:
    """In the hour that autumn repeats the earlier moment is taken, and a sentence says so."""
    start, note = local_to_utc("2025-10-26 02:30:00", PARIS)
    assert start == utc(2025, 10, 26, 0, 30)
    assert note is not None
    assert "twice in Europe/Paris" in note


def test_the_skipped_hour_is_noted() -> None:
    """A time that the clock change of spring skips is read with the offset before it, and a sentence says so."""
    start, note = local_to_utc("2026-03-29 02:30:00", PARIS)
    assert start == utc(2026, 3, 29, 1, 30)
    assert note is not None
    assert "does not exist" in note


def test_the_first_form_that_fits_is_used() -> None:
    """Several forms may be allowed; text of none of them is refused with the text and the first form."""
    forms = ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M")
    assert local_to_utc("2026-01-15 12:00", PARIS, forms)[0] == utc(2026, 1, 15, 11)
    with pytest.raises(ValueError, match=r"'tomorrow' is no time of the form %Y-%m-%d %H:%M:%S\.%f"):
        local_to_utc("tomorrow", PARIS, forms)


@pytest.mark.parametrize("text", ["0001-01-01 00:00:00", "9999-12-31 23:59:59"])
def test_times_at_the_ends_of_the_calendar_are_refused_not_crashed(text: str) -> None:
    """A year that has no UTC counterpart is unreadable, like any other nonsense."""
    zone = ZoneInfo("Etc/GMT-14") if text.startswith("0") else ZoneInfo("Etc/GMT+12")
    with pytest.raises(ValueError, match="out of range"):
        local_to_utc(text, zone)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("xivocc_gateway-1459435465.15089", utc(2016, 3, 31, 14, 44, 25)),
        ("20170901181806-1504261084.7-1001-1003-Internal.wav", utc(2017, 9, 1, 10, 18, 4)),
        ("1504261084.7.wav", utc(2017, 9, 1, 10, 18, 4)),
        ("gw-788918400.1", utc(1995, 1, 1)),
        ("gw-788918399.1", None),  # before 1995
        ("gw-1772798400.1", NOW + timedelta(days=1)),
        ("gw-1772798401.1", None),  # more than a day ahead
        ("gw1-5550100123.1-1459435465.2", utc(2016, 3, 31, 14, 44, 25)),  # a number of the year 2145 comes first
        ("1459435465", None),  # no fraction: a telephone number as likely
        ("99991459435465.1", None),
        ("1.1459435465.1", None),
        ("1459435465.1234567890", None),
        ("", None),
        ("gw1-recording", None),
    ],
)
def test_the_epoch_in_an_id(text: str, expected: datetime | None) -> None:
    """Nine or ten digits, a point and a counter are a start where that is plausible, wherever they stand."""
    assert epoch_of(text, NOW) == expected


@pytest.mark.parametrize("seconds", [-2, 0, 1, 2])
@pytest.mark.parametrize("zone", ["Europe/Paris", "Asia/Kathmandu", "Pacific/Kiritimati", "America/St_Johns"])
def test_an_epoch_that_fits_the_printed_time_is_the_start(seconds: int, zone: str) -> None:
    """Every offset in use, give or take two seconds, makes the epoch the start and needs no note."""
    printed = local_text(utc(2016, 3, 31, 14, 44, 25) + timedelta(seconds=seconds), ZoneInfo(zone))
    assert start_of("gw-1459435465.1", printed, ZoneInfo(zone), NOW) == (utc(2016, 3, 31, 14, 44, 25), None)


@pytest.mark.parametrize("away", [timedelta(seconds=3), timedelta(minutes=14), timedelta(hours=14, minutes=15)])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_epoch_that_does_not_fit_is_noted_and_not_used(away: timedelta, sign: int) -> None:
    """Three seconds off the quarter hour, or more than 14 hours: the printed time is the start."""
    naive = utc(2016, 3, 31, 14, 44, 25) + sign * away
    start, note = start_of("gw-1459435465.1", f"{naive:%Y-%m-%d %H:%M:%S}", ZoneInfo("UTC"), NOW)
    assert start == naive
    assert note is not None
    assert "does not fit" in note


def test_the_epoch_that_fits_is_chosen_among_several() -> None:
    """An id with two numbers that could be starts is settled by the printed time."""
    start, note = start_of("gw-1400000000.1-1459435465.2", "2016-03-31 16:44:26", PARIS, NOW)
    assert (start, note) == (utc(2016, 3, 31, 14, 44, 25), None)


def test_another_zone_than_the_configured_one_is_noted() -> None:
    """The epoch is right all the same, but windows would be asked for in the wrong local time: say so."""
    start, note = start_of("gw-1459435465.1", "2016-03-31 22:44:25", PARIS, NOW)
    assert start == utc(2016, 3, 31, 14, 44, 25)
    assert note is not None
    assert "+8.00 h from UTC, which is not Europe/Paris; check `timezone`" in note


@pytest.mark.parametrize("epoch", [utc(2025, 10, 26, 0, 30), utc(2025, 10, 26, 1, 30)])
def test_the_epoch_tells_the_repeated_hour_apart(epoch: datetime) -> None:
    """Both moments of the repeated hour are read exactly and without a note."""
    printed = local_text(epoch, PARIS)
    assert printed == "2025-10-26 02:30:00"
    assert start_of(f"gw-{int(epoch.timestamp())}.1", printed, PARIS, NOW) == (epoch, None)


def test_without_a_readable_print_the_epoch_stands_alone() -> None:
    """A missing or strange printed start is made up for by the epoch, with a note; without one it is refused."""
    start, note = start_of("gw-1459435465.1", "31/03", PARIS, NOW)
    assert start == utc(2016, 3, 31, 14, 44, 25)
    assert note is not None
    assert "'31/03' could not be read" in note
    with pytest.raises(ValueError, match="'31/03'"):
        start_of("recording", "31/03", PARIS, NOW)


def test_without_an_epoch_the_printed_time_is_the_start() -> None:
    """An id that tells nothing leaves the printed local time, with its own note in the repeated hour."""
    assert start_of("recording", "2016-03-31 16:44:26", PARIS, NOW) == (utc(2016, 3, 31, 14, 44, 26), None)
    assert "twice" in str(start_of("recording", "2025-10-26 02:30:00", PARIS, NOW)[1])


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-03-05T12:00:00Z", None, NOW),
        ("2026-03-05T13:00:00+01:00", None, NOW),
        ("2026-03-05T13:00:00+0100", PARIS, NOW),
        ("2026-03-05 13:00:00", PARIS, NOW),
        ("2026-03-05T12:00:00", None, NOW),
        ("2026-03-05T12:00", None, NOW),
        ("2026-03-05T12:00:00.1234567Z", None, NOW.replace(microsecond=123456)),
        ("2026-03-05T12:00:00.5", None, NOW.replace(microsecond=500000)),
        (" 20260305T120000Z ", None, NOW),
    ],
)
def test_iso_times(text: str, zone: ZoneInfo | None, expected: datetime) -> None:
    """ISO 8601 with an offset, with Z, without either; up to seven digits of a second."""
    moment = parse_iso(text, zone)
    assert moment == expected
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["", "2026-03-05", "2026-13-05T12:00:00Z", "yesterday at noon", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_iso_time_is_refused(text: str) -> None:
    """A date alone, nonsense and years out of range raise ValueError and nothing else."""
    with pytest.raises(ValueError):
        parse_iso(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("00:01:07", 67), ("1:02:03", 3723), ("100:00:00", 360000), ("01:07", 67), ("00:00:00.5", 0.5), ("00:00:00", 0)],
)
def test_clock_durations(text: str, expected: float) -> None:
    """Hours may be missing or many; fractions count."""
    assert hms(text) == expected


@pytest.mark.parametrize("text", ["", "67", "about a minute", "-00:01:07", "00:01:07:00", "1e3:00"])
def test_what_is_no_clock_duration_is_none(text: str) -> None:
    """A duration is optional: what cannot be read is None, never an error."""
    assert hms(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("PT1M7S", 67), ("PT7.5S", 7.5), ("P1DT2H", 93600), ("PT0S", 0), ("P2D", 172800), ("PT90M", 5400)],
)
def test_iso_durations(text: str, expected: float) -> None:
    """Days, hours, minutes and seconds in any combination."""
    assert iso_duration(text) == expected


@pytest.mark.parametrize("text", ["", "P", "PT", "67", "P1M", "P1Y", "-PT1S"])
def test_what_is_no_iso_duration_is_none(text: str) -> None:
    """Months and years have no fixed length, and nonsense has none at all."""
    assert iso_duration(text) is None


def test_a_window_is_written_in_local_time_an_hour_wider() -> None:
    """A vendor's filter gets its own wall time; the extra hour covers the clock changes."""
    window = Window(utc(2025, 10, 26, 1), utc(2025, 10, 26, 2))
    assert local_span(window, PARIS) == ("2025-10-26 02:00:00", "2025-10-26 04:00:00")
    assert local_span(window, PARIS, "%H:%M", timedelta(0)) == ("02:00", "03:00")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, NOW),
        (67.5, NOW + timedelta(seconds=67.5)),
        (31 * 86400, NOW + timedelta(days=31)),
        (31 * 86400 + 1, None),
        (1e300, None),
        (-1, None),
        (float("nan"), None),
        (None, None),
    ],
)
def test_the_end_is_start_and_duration(seconds: float | None, expected: datetime | None) -> None:
    """A duration that is unknown, negative or longer than a month gives no end, whatever its size."""
    assert end_of(NOW, seconds) == expected


def test_an_end_beyond_the_calendar_is_none() -> None:
    """A call on the last day there is may have an end that cannot be written."""
    assert end_of(utc(9999, 12, 31), 86400) is None
