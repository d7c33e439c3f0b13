"""What can go wrong with a phone system, named by what to do next.

Every vendor's dialect ends here; nothing above knows a status code. Whatever is none of these is a bug and
is reported with its type, never swallowed. All take positional arguments so that they survive pickling.
"""

from storage.sidecar import GapReason


class SourceError(Exception):
    """Base of all. The message is for people and carries no secret: what, to which request, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Retry(SourceError):
    """It passes: resets, time-outs, 5xx, a truncated body. Try again, soon and then less soon."""


class Truncated(Retry):
    """Fewer bytes came than were announced. Retried; a recording that stays so becomes a gap `truncated`."""


class WaitUntil(SourceError):
    """The source said for how long: 429, Retry-After, locked out. The whole source waits, in seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.args = (message, seconds)
        self.seconds = seconds


class SessionExpired(SourceError):
    """401, a token that ran out: log in again, once, and repeat."""


class LoginPage(SessionExpired):
    """A login page came in place of an answer: log in again, once; where it still comes, it is what is served there."""


class NotYet(SourceError):
    """The recording is not ready or not synchronised. No failure; look again at the next poll."""


class GiveUp(SourceError):
    """This recording cannot be had: a gap, with its reason."""

    def __init__(self, message: str, reason: GapReason) -> None:
        super().__init__(message)
        self.args = (message, reason)
        self.reason = reason


class MediaNotFound(SourceError):
    """404 on media: not yet for 15 minutes after the call's end, then a gap `media_missing`."""


class StopSource(SourceError):
    """Wrong password, no rights, wrong address: nothing more to this source until somebody acts."""


class BadAnswer(Retry):
    """The answer is not what this API gives: broken XML or JSON, a login page, too large. Retried, bounded."""


class NotAudio(BadAnswer):
    """What came is no recording: an error page, some text, nothing. Retried, then a gap with this reason."""

    def __init__(self, message: str, reason: GapReason = GapReason.NOT_AUDIO) -> None:
        super().__init__(message)
        self.args = (message, reason)
        self.reason = reason
