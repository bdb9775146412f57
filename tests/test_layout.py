"""No import runs backwards: each folder imports from those below it alone, and no modules import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from bioner_edge.io.registry import MODULES as FILE_FORMAT_MODULES

ROOT = Path(__file__).parents[1]
FOLDERS = {"bioner_edge": "bioner_edge", "convert": "bioner_edge.convert", "benchmarks": "bioner_edge.benchmarks"}
MOST_LINES = 300

FLOORS = (
    "errors report processes",
    "document hardware",
    "text",
    "models",
    "backends",
    "decoding",
    "formats",
    "prompts scores extraction",
    "questions constraints engine",
    "extract",
    "loading guard io",
    "corpora terminal",
    "run",
    "convert",
    "format_tables",
    "benchmarks",
    "tuning doctor",
    "cli",
    "__main__",
)
"""Folders and modules from the lowest to the highest; those of one floor do not import each other."""

FLOOR = {part: number for number, floor in enumerate(FLOORS) for part in floor.split()}


def modules() -> dict[str, Path]:
    """The modules by name, all but the package itself, which everything may import for its version."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    del found["bioner_edge"]
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports anywhere in it, also for types alone."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute, so that a module can be moved"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


GRAPH = {name: {other for other in imported(path) if other in MODULES} for name, path in MODULES.items()}
GRAPH["bioner_edge.io.registry"] |= set(FILE_FORMAT_MODULES)  # which it imports by their names


def part(module: str) -> str:
    return module.split(".")[1]


def test_every_folder_has_its_floor() -> None:
    assert {part(name) for name in MODULES} == FLOOR.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    wrong = [o for o in GRAPH[module] if part(o) != part(module) and FLOOR[part(o)] >= FLOOR[part(module)]]
    assert wrong == []


def test_there_is_no_circle() -> None:
    TopologicalSorter(GRAPH).prepare()  # raises CycleError, which shows it


def test_modules_are_short() -> None:
    long = {name: size for name, path in MODULES.items() if (size := len(path.read_text().splitlines())) > MOST_LINES}
    assert not long
