"""The connectors are found by being there, each under the name of its file."""

import importlib
import types

import pytest

from worker.vendors import load_vendors, vendor_keys


def test_the_connectors_are_found() -> None:
    """All five phone systems are there, and what the configuration must know of each is told."""
    assert set(load_vendors()) == {"catapult", "imagicle", "verba", "xivo", "yeastar"}
    keys = vendor_keys()
    assert {name for name, key in keys.items() if key.needs_timezone} == {"verba", "xivo", "yeastar"}
    assert all(keys[name].options is vendor.info.options for name, vendor in load_vendors().items())
    assert keys["xivo"].default_requests_per_second is None


def test_a_connector_under_a_wrong_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that calls its vendor something else is a mistake that shows at once."""
    xivo = load_vendors()["xivo"]
    monkeypatch.setattr(importlib, "import_module", lambda _: types.SimpleNamespace(VENDOR=xivo))
    load_vendors.cache_clear()
    with pytest.raises(ValueError, match=r"worker/vendors/\w+\.py calls itself 'xivo'"):
        load_vendors()
    monkeypatch.undo()
    assert "xivo" in load_vendors()
