"""How the results are printed: medians, and ratios to rclone and to the bare limit, taken round by round."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from tests.bench.measure import Cost

_HEAD = ("", "rec/s", "MB/s", "CPU ms/rec", "CPU ms/MB", "peak MB", "rate/rclone", "CPU/rclone", "CPU/limit", "server")
_RCLONE, _LIMIT = "rclone copy", "bare limit"


def mean_table(size: int, costs: Mapping[str, Sequence[Cost]], say: Callable[[str], None]) -> None:
    """Print the table of one size; costs are those of one recording."""
    say(f"recordings of {size / 1000:g} KB, each with its sidecar; {len(next(iter(costs.values())))} rounds")
    rows = []
    for title, found in costs.items():
        wall, cpu = median(c.wall for c in found), median(c.cpu for c in found)
        mb = size / 1e6
        rows.append((
            title,
            f"{1 / wall:.0f}" if wall < 0.1 else f"{1 / wall:.1f}",
            f"{mb / wall:.0f}",
            f"{cpu * 1e3:.2f}",
            f"{cpu * 1e3 / mb:.2f}",
            f"{max(c.peak for c in found) / 1e6:.0f}",
            ratio(costs.get(_RCLONE), found, lambda theirs, ours: theirs.wall / ours.wall),
            ratio(costs.get(_RCLONE), found, lambda theirs, ours: ours.cpu / theirs.cpu),
            ratio(costs.get(_LIMIT), found, lambda theirs, ours: ours.cpu / theirs.cpu),
            f"{100 * median(c.server for c in found):.0f} %",
        ))  # fmt: skip
    lines(_HEAD, rows, say)


def ratio(theirs: Sequence[Cost] | None, ours: Sequence[Cost], of: Callable[[Cost, Cost], float]) -> str:
    """Return the median of the ratios of each round."""
    if theirs is None:
        return "-"
    return f"{median(of(a, b) for a, b in zip(theirs, ours, strict=True)):.2f}"


def lines(head: Sequence[str], rows: Sequence[Sequence[str]], say: Callable[[str], None]) -> None:
    """Print rows under their heads, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        first, *rest = (
            cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join((first, *rest)).rstrip())
