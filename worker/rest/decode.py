"""Reading what a phone system answered, without trusting it: JSON, XML, CSV.

Bodies arrive already capped in size (`worker.rest.client`); here the number of values is, because a few bytes of
brackets make a hundred bytes of memory. Whatever cannot be read raises `BadAnswer` with a sentence; nothing else
leaves these functions. `clean` takes secrets out of what such a sentence quotes (`RestClient.clean`). Lone
surrogates, legal in JSON text but not in UTF-8, are spelled out, so that every later step may encode.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from worker.errors import BadAnswer

_MAX_DEPTH = 100
_MAX_VALUES = 1_000_000  # a page of 1,000 rows has some 30,000; a million are up to 300 MB of Python objects
_MAX_FAULTS = 1000  # sentences about rows of one file
_QUOTED = 4096  # bytes of a body that are looked at in order to quote its beginning

Clean = Callable[[str], str]


def _number(kind: type[int] | type[float]) -> Callable[[str], int | float | str]:
    """Return a reader of numbers that leaves what Python or JSON could not write again as the text it was.

    1e999 is a number to JSON and infinity to Python; an integer of 5,000 digits is refused by Python. One such
    field must not make the page it stands on unreadable.
    """

    def read(text: str) -> int | float | str:
        try:
            number = kind(text)
        except ValueError:
            return text
        return number if kind is int or math.isfinite(number) else text  # a huge int overflows isfinite

    return read


def _clean(value: Any, depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item, depth + 1) for key, item in value.items()}
    return value


def text_of(body: bytes) -> str:
    """Decode a body as UTF-8, its byte order mark dropped, unreadable bytes replaced."""
    return body.decode("utf-8-sig", "replace")


def json_of(body: bytes, what: str, clean: Clean = str) -> Any:
    """Parse JSON, bombs refused; NaN, infinities and endless integers become text. `what` is for the error."""
    _refuse_bombs(body, b",[{", what)
    try:
        return _clean(
            json.loads(body.decode("utf-8-sig"), parse_constant=str, parse_float=_number(float), parse_int=_number(int))
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else clean(str(error))[:200]
        raise BadAnswer(f"{what}: expected JSON, got {_excerpt(body, clean)} ({reason})") from error


def json_object(body: bytes, what: str, clean: Clean = str) -> dict[str, Any]:
    """Parse JSON that must be an object."""
    value = json_of(body, what, clean)
    if not isinstance(value, dict):
        raise BadAnswer(f"{what}: expected a JSON object, got {type(value).__name__}")
    return value


def xml_of(body: bytes, what: str, clean: Clean = str) -> Element:
    """Parse XML with DTDs, entities and external references refused. Returns the root, whatever its name."""
    _refuse_bombs(body, b"<=", what)
    parser = DefusedXMLParser(forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        parser.feed(body)
        root: Element = parser.close()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        reason = clean(str(error))[:200]
        raise BadAnswer(f"{what}: expected XML, got {_excerpt(body, clean)} ({reason})") from error
    level = [root]
    for _ in range(_MAX_DEPTH):
        level = [child for element in level for child in element]
    if level:
        raise BadAnswer(f"{what}: the XML is nested more than {_MAX_DEPTH} levels deep")
    return root


def csv_of(
    body: bytes, required: frozenset[str], what: str, clean: Clean = str
) -> tuple[list[dict[str, str]], list[str]]:
    """Parse CSV by its header line. Returns the rows, and a sentence for each row of the wrong width.

    Raises BadAnswer where a required column is missing, a name stands twice or the quoting never ends.
    """
    _refuse_bombs(body, b",\n\r", what)
    text = text_of(body).replace("\x00", "\ufffd")
    rows: list[dict[str, str]] = []
    faults: list[str] = []
    try:
        lines = list(_lines(csv.reader(io.StringIO(text, newline=""), strict=True)))
    except csv.Error:  # quotes that are none: then each line is a row of its own, and only the bad ones are lost
        lines = []
        for number, line in enumerate(io.StringIO(text, newline=None), 1):
            try:
                lines += [(number, cells) for cells in csv.reader([line]) if cells and line.count('"') % 2 == 0]
            except csv.Error:
                lines.append((number, []))
            if line.count('"') % 2:
                faults.append(f"line {number} has a quote that never ends")
    header = [name.strip().lower() for name in lines[0][1]] if lines else []
    if missing := required - set(header):
        raise BadAnswer(
            f"{what}: the CSV has no column {', '.join(sorted(missing))}; it begins {_excerpt(body, clean)}"
        )
    if len(set(header)) != len(header):
        raise BadAnswer(f"{what}: a CSV column stands twice in the header {clean(','.join(header))[:200]}")
    for number, cells in lines[1:]:
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()  # a comma too many at the end
        if len(cells) != len(header):
            faults.append(f"line {number} has {len(cells)} fields, the header {len(header)}")
        else:
            rows.append(dict(zip(header, cells, strict=True)))
    if len(faults) > _MAX_FAULTS:
        faults[_MAX_FAULTS:] = [f"{len(faults) - _MAX_FAULTS} more lines cannot be read"]
    return rows, faults


def _lines(reader: Any) -> Iterator[tuple[int, list[str]]]:
    return ((reader.line_num, cells) for cells in reader if cells)


def _refuse_bombs(body: bytes, marks: bytes, what: str) -> None:
    """Refuse a body whose values, each begun or ended by one of `marks`, would fill the memory."""
    if sum(body.count(mark) for mark in marks) > _MAX_VALUES:
        raise BadAnswer(f"{what}: the answer holds more than {_MAX_VALUES} values")


def _excerpt(body: bytes, clean: Clean) -> str:
    """Quote how a body begins, for error messages; never more than 60 characters, control characters escaped."""
    return repr(clean(text_of(body[:_QUOTED]))[:60]) if body else "an empty answer"


def looks_like_a_document(head: bytes) -> bool:
    """Tell whether a body that should be audio begins like HTML, XML or JSON (after BOM and white space)."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return start in (b"<", b"{", b"[")
