"""How a source stands, for people: its watermark and lag, what is held and missing, what went wrong last."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from config.settings import Source
from storage.keys import utc_date
from storage.state_records import moment_or_none
from worker.index import gaps_on_record
from worker.runtime import Services
from worker.span import current_watermark


@dataclass(frozen=True, slots=True)
class Standing:
    """One line of `callvault status`; `lag_seconds` is how far the watermark is behind now."""

    source: str
    watermark: datetime | None
    lag_seconds: float | None
    held_today: int
    pending: int
    gaps: int
    last_poll_at: datetime | None
    last_error: str

    def public(self) -> dict[str, Any]:
        """Return the form that `--json` prints."""
        times = ("watermark", "last_poll_at")
        return {k: v.isoformat() if k in times and v else v for k, v in asdict(self).items()}


async def standing(services: Services, source: Source) -> Standing:
    """Read how a source stands from the bucket and, for what only a poll knows, from the state. StoreError."""
    now = services.clock.now()
    watermark = await current_watermark(services, source)
    today = services.partition("recordings", source, utc_date(now))
    held = sum([1 async for found in services.store.objects(today) if found.key.endswith(".json")])
    attempts = await services.state.attempts(source.name)
    poll = await services.state.noted(f"poll:{source.name}")
    newest = max(attempts.values(), key=lambda attempt: (attempt.not_before, attempt.first_try_at), default=None)
    return Standing(
        source=source.name,
        watermark=watermark,
        lag_seconds=(now - watermark).total_seconds() if watermark else None,
        held_today=held,
        pending=max(_count(poll.get("pending", "")), len(attempts)),
        gaps=await gaps_on_record(services, source),
        last_poll_at=moment_or_none(poll.get("at")),
        last_error=poll.get("error", "") or (newest.error if newest else ""),
    )


def _count(text: str) -> int:
    """Read a figure of a note; 0 where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
