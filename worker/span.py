"""Which span a pass looks at: from `lookback` behind the watermark to now, or exactly what was asked for."""

from datetime import datetime

from config.settings import Source
from worker.index import archived_watermark
from worker.model import Recording, Window
from worker.runtime import Services


async def current_watermark(services: Services, source: Source) -> datetime | None:
    """Return the watermark from the state, else from the bucket; None for a source that never had one."""
    return await services.state.watermark(source.name) or await archived_watermark(services, source)


def window_of(source: Source, watermark: datetime | None, now: datetime) -> Window:
    """Return the window a regular pass lists.

    The first pass begins at `start_from` (by default `lookback` ago); later ones `lookback` behind the
    watermark, but never before `start_from`.
    """
    first = source.start_from or now - source.lookback
    if watermark is None:
        return Window(min(first, now), now)
    start = min(watermark, now) - source.lookback  # a clock that ran ahead may have moved it into the future
    return Window(min(max(start, source.start_from) if source.start_from else start, now), now)


async def current_window(services: Services, source: Source) -> Window:
    """Return the window a regular pass lists now: that of `window_of`, and back to the oldest recording being retried.

    So a recording that keeps failing stays in view even where no watermark remembers it yet. Retries of old
    spans that were asked for by hand are left to whoever asked.
    """
    now = services.clock.now()
    window = window_of(source, await current_watermark(services, source), now)
    start = window.start
    for attempt in (await services.state.attempts(source.name)).values():
        recording = Recording.kept(attempt.recording)
        if recording and recording.started_at >= attempt.first_try_at - source.lookback:
            start = min(start, recording.started_at)
    return Window(start, window.end)
