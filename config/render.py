"""How a log record that holds no secrets any more is written: one line of JSON, or one line for people.

Nothing of a value can begin a new line or move the cursor: control characters, line ends and characters that turn
the direction of writing are escaped. Tracebacks are indented line by line.
"""

import json
from collections.abc import Mapping

_FIRST = ("time", "level", "event")
_BLOCKS = ("exception", "stack")


def as_json(record: Mapping[str, object]) -> str:
    """Return one line of ASCII: JSON escapes control characters and everything beyond ASCII."""
    return json.dumps(record, default=str)


def as_text(record: Mapping[str, object]) -> str:
    """Return one line, `time level event key=value …`, and below it, indented, a traceback where there is one."""
    head = f"{record['time']} {record['level']!s:<8} {visible(str(record['event']))}"
    rest = [f"{visible(k)}={_word(v)}" for k, v in record.items() if k not in _FIRST + _BLOCKS]
    blocks = [_indented(str(record[key])) for key in _BLOCKS if key in record]
    return "\n".join([" ".join([head, *rest]), *blocks])


def visible(text: str) -> str:
    """Return text with everything that does not print written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _word(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    plain = visible(text)
    if not isinstance(value, str) or (plain and not any(c in ' "=' for c in plain)):
        return plain
    return '"' + plain.replace('"', '\\"') + '"'


def _indented(block: str) -> str:
    return "\n".join(f"    | {visible(line)}" for line in block.split("\n"))
