"""The package's own shape: imports go one way."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import cdc

PACKAGE = Path(cdc.__file__).parent


def imports(module: Path) -> set[str]:
    """Return the modules of this package that `module` imports, by dotted name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cdc"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("cdc")}
    return found


def dotted(module: Path) -> str:
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in PACKAGE.rglob("*.py") if "_resources" not in path.parts}


def test_imports_have_no_cycle() -> None:
    """Every module can be read after those that it imports."""
    graph = {
        name: (imports(path) & MODULES.keys()) - {name, "cdc"} for name, path in MODULES.items()
    }

    assert len(MODULES) == len([*TopologicalSorter(graph).static_order()]) + ("cdc" not in graph)


def test_modules_are_short_enough_to_read_at_once() -> None:
    """A module has about 300 lines at most; 330 is where it has become two."""
    long = {n: len(p.read_text(encoding="utf-8").splitlines()) for n, p in MODULES.items()}

    assert {} == {name: lines for name, lines in long.items() if lines > 330}


def test_the_reading_order_names_modules_that_exist() -> None:
    """What the package's docstring tells to read is there to be read."""
    words = {
        w.strip("`") for w in (cdc.__doc__ or "").split() if w.startswith("`") and w.endswith("`")
    }

    assert set() == {w for w in words if f"cdc.{w}" not in MODULES}
