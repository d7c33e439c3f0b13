"""What the campaign did and what it saw: faults by boundary and kind, breaches in words. Safe from any thread."""

import threading
from collections import Counter
from collections.abc import Iterator

_TOLD = 20


class Ledger:
    """One campaign's books. A breach is something that may never happen, at whatever moment it is seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._struck: Counter[tuple[str, str]] = Counter()
        self._breaches: Counter[str] = Counter()
        self._told: list[str] = []

    def struck(self, boundary: str, kind: str) -> None:
        """Count a fault that took place (not one that was merely planned)."""
        with self._lock:
            self._struck[boundary, kind] += 1

    def breach(self, kind: str, what: str) -> None:
        """Note a broken promise; `kind` is one of lost, doubled, wrong, overwritten, deleted, cap, other."""
        with self._lock:
            self._breaches[kind] += 1
            if len(self._told) < _TOLD:
                self._told.append(f"{kind}: {what}")

    def breaches(self, kind: str) -> int:
        with self._lock:
            return self._breaches[kind]

    def told(self) -> list[str]:
        """Return the first breaches in words."""
        with self._lock:
            return list(self._told)

    def faults(self) -> Iterator[tuple[str, str, int]]:
        """Iterate over boundary, kind and count, sorted."""
        with self._lock:
            counts = sorted(self._struck.items())
        for (boundary, kind), count in counts:
            yield boundary, kind, count

    @property
    def total(self) -> int:
        with self._lock:
            return self._struck.total()

    @property
    def kinds(self) -> int:
        with self._lock:
            return len(self._struck)
