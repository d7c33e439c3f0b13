"""What of a vendor's row is kept: nothing endless, and none of our own credentials.

Rows wait in memory by the thousand, lie in the state, and end in sidecars and gap records verbatim. So a row that is
larger than any phone system's is put on record as unreadable, and one that repeats what we log in with has that
masked, which is the one thing that is changed in a row, and noted. How a row is read is the connector's business.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from worker.model import Recording, Unreadable
from worker.rest.hidden import Hidden

MAX_ROW = 256 * 1024
"""Characters of one row as JSON; those seen have 4,000 at most. A thousand are held at a time."""

_LONGEST_ID = 4096
_OURS = frozenset({"readiness", "started_at", "ended_at", "direction"})
"""Fields in words of our own: a password may be one of them, and a row without them could not be read back."""
_NOTE = "the phone system's record repeats a credential of ours, which was masked"


def fit(row: Recording | Unreadable, hidden: Hidden) -> Recording | Unreadable:
    """Return the row as it may be kept."""
    told: dict[str, Any] = (
        row.to_json() if isinstance(row, Recording) else {"id": row.id, "detail": row.detail, "record": row.record}
    )
    text = json.dumps(told)
    if len(text) > MAX_ROW:
        detail = f"the row has {len(text)} characters, more than {MAX_ROW}, and was left out"
        omitted = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "characters": len(text)}
        return Unreadable(row.id if row.id and len(row.id) <= _LONGEST_ID else None, detail, {"omitted": omitted})
    if not hidden.may_be_in(text):
        return row
    clean = {name: value if name in _OURS else _without(value, hidden.out_of) for name, value in told.items()}
    if isinstance(row, Recording):
        clean["call"] = {n: v if n in _OURS else _without(v, hidden.out_of) for n, v in told["call"].items()}
    if clean == told:
        return row
    if row.id and hidden.out_of(row.id) != row.id:  # it would stand in keys, and masked it names nothing
        return Unreadable(None, "the id of a row repeats a credential of ours", {})
    if isinstance(row, Recording):
        return Recording.from_json(clean).noting(_NOTE)
    return Unreadable(row.id, f"{clean['detail']} ({_NOTE})", clean["record"])


def _without(value: Any, out_of: Callable[[str], str]) -> Any:
    match value:
        case str():
            return out_of(value)
        case list():
            return [_without(item, out_of) for item in value]
        case dict():
            return {out_of(key): _without(item, out_of) for key, item in value.items()}
        case _:
            return value
