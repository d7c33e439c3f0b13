"""The four package names are generic: whoever imports them must get this tree's, not somebody else's."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("tasks", "worker", "storage", "config")


@pytest.mark.parametrize("name", NAMES)
def test_each_import_name_resolves_to_this_tree(name: str) -> None:
    """A package of the same name elsewhere on the path would be imported in silence."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin == str(ROOT / name / "__init__.py")


def test_importing_does_nothing(tmp_path: Path) -> None:
    """Without configuration, broker or bucket everything can be imported, and no file is written."""
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in NAMES
        for path in (ROOT / name).rglob("*.py")
        if not path.name.startswith("__")
    )
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    subprocess.run(
        [sys.executable, "-P", "-c", code, *modules],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
    assert len(modules) > 60
    assert list(tmp_path.iterdir()) == []
