"""What must not get out of one source's HTTP: its secrets and session tokens, in whatever form they come back.

Phone systems repeat what they were sent, in error pages and even in rows; what is quoted of them passes `clean`, which
also knows one-time links by their form, and what is kept of them passes `worker.rows`. The log has a redaction of its
own (`config.logs`).
"""

from collections.abc import Iterable

from config.redact import MASK, Redactor

_LONGEST_READ = 16 * 1024  # characters of a vendor's text that are looked at
_LEAST_LEFT = 5  # characters of a secret's beginning that are too many to be shown
_DISTINCT = 8
"""A shorter secret is not taken out of what is kept: it may be an extension's number."""


class Hidden:
    """The secrets of one source; tokens are added as they are got."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._all = self._distinct = Redactor()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Hide these from now on; empty ones are passed over."""
        known = self._secrets | {secret for secret in secrets if secret}
        if known != self._secrets:
            self._secrets = known
            self._all = Redactor(known)
            self._distinct = Redactor(secret for secret in known if len(secret) >= _DISTINCT)

    def clean(self, text: str) -> str:
        """Return text of the vendor's fit for a message: no secrets, one line, at most 300 characters."""
        shown = self._unfinished(self._all.text(text[:_LONGEST_READ], _LONGEST_READ))[:2000]
        return " ".join("".join(c if c.isprintable() else " " for c in shown).split())[:300]

    def out_of(self, text: str) -> str:
        """Return text without the secrets that are long enough not to be anything else; not cut."""
        return self._distinct.known(text)

    def may_be_in(self, json_text: str) -> bool:
        """Tell, quickly, whether JSON may hold one of those."""
        return self._distinct.may_be_in(json_text)

    def _unfinished(self, text: str) -> str:
        """Mask a secret's beginning at the end of the text, which may have been cut, by us or on the way."""
        for secret in self._secrets:
            for size in range(min(len(secret), len(text)), _LEAST_LEFT - 1, -1):
                if text.endswith(secret[:size]):
                    return text[:-size] + MASK
        return text
