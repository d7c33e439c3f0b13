"""Every connector has its contract test, its simulator and the shape that all of them share."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from tests.contract.vendor_contract import VendorContract
from tests.support.simulator import Simulator
from worker.vendors import load_vendors

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "worker" / "vendors").glob("*.py") if path.name != "__init__.py")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Return one connector's file after the other."""
    found: Path = request.param
    return found


def contracts_of(name: str) -> list[type[VendorContract]]:
    """Return the contract classes in a vendor's test file."""
    module = importlib.import_module(f"tests.contract.test_{name}")
    classes = (kind for _, kind in inspect.getmembers(module, inspect.isclass))
    return [kind for kind in classes if issubclass(kind, VendorContract) and kind.__name__.startswith("Test")]


def test_each_passes_the_contract(path: Path) -> None:
    """A connector without a contract class, a simulator or payloads of its own does not get in."""
    contracts = contracts_of(path.stem)
    assert contracts
    for contract in contracts:
        assert contract.vendor is load_vendors()[path.stem]
        assert issubclass(contract.simulator, Simulator)
        assert contract.simulator.vendor == path.stem
        assert bool(contract.simulator.timezone) >= contract.vendor.info.needs_timezone
    assert any((ROOT / "tests" / "payloads" / path.stem).iterdir())


def test_no_contract_switches_a_promise_off(path: Path) -> None:
    """A contract class adds tests of its own and changes attributes, but replaces no test of the contract."""
    promises = {name for name in dir(VendorContract) if name.startswith("test_")}
    for contract in contracts_of(path.stem):
        assert [name for name in promises if getattr(contract, name) is not getattr(VendorContract, name)] == []


def test_each_is_called_like_its_file(path: Path) -> None:
    """File, `info.name` and the key in the configuration are one word."""
    assert load_vendors()[path.stem].info.name == path.stem


def test_the_parts_come_in_order(path: Path) -> None:
    """Docstring, options, the connector, mapping functions; `VENDOR` is the last line and the file is short."""
    text = path.read_text()
    tree = ast.parse(text)
    assert len((ast.get_docstring(tree) or "").splitlines()) >= 5, "say how it authenticates, pages and tells time"
    vendor = load_vendors()[path.stem]
    lines = {node.name: node.lineno for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert lines[vendor.info.options.__name__] < lines[vendor.__name__]
    assert all(lines[name] > lines[vendor.__name__] for name in functions)
    assert text.splitlines()[-1] == f"VENDOR: type[Vendor] = {vendor.__name__}"
    assert len(text.splitlines()) <= 430
