"""Every error of a phone system survives a queue and says what it was made to say."""

import inspect
import pickle

import pytest

from storage.sidecar import GapReason
from worker import errors
from worker.errors import GiveUp, SourceError, WaitUntil

MADE = [
    WaitUntil("hq: wait", 12.5) if kind is WaitUntil
    else GiveUp("hq: give up", GapReason.FORBIDDEN) if kind is GiveUp
    else kind("hq: message")
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SourceError)
]  # fmt: skip


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_every_error_survives_pickling(error: SourceError) -> None:
    """Type, message and fields come back, and the text is the message alone."""
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert back.args == error.args
    assert str(back) == error.message
    assert error.message.startswith("hq: ")


def test_all_kinds_are_tried() -> None:
    """The list above finds what is defined, down to the last kind."""
    kinds = {type(error).__name__ for error in MADE}
    assert {"Retry", "WaitUntil", "SessionExpired", "NotYet", "GiveUp", "StopSource", "MediaNotFound"} < kinds
    assert GiveUp("x", GapReason.EMPTY).reason is GapReason.EMPTY
    assert WaitUntil("x", 3).seconds == 3
