"""What holds for the whole package: what is shipped, imported and named public, and what the README opens with."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import bioner_edge

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FOLDERS = {"bioner_edge": "bioner_edge", "convert": "bioner_edge.convert", "benchmarks": "bioner_edge.benchmarks"}

AT_ONCE = {"bioner_edge", "bioner_edge.errors", "bioner_edge.document"}
"""What is loaded with the package, beside the command line."""


def modules() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def loaded_by(statement: str) -> set[str]:
    """The modules that are loaded once `statement` has run, in an interpreter of its own."""
    code = f"{statement}\nimport sys\nprint()\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split())


def imported_by(statement: str) -> set[str]:
    """The top-level ones of the modules that a statement loads."""
    return {name.split(".")[0] for name in loaded_by(statement)}


def test_the_package_list_is_the_tree() -> None:
    tree = set()
    for path in modules():
        folder, *rest = path.parent.relative_to(ROOT).parts
        tree.add(".".join([FOLDERS[folder], *rest]))
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"
    shipped = set(SETTINGS["tool"]["setuptools"]["packages"])
    assert tree - shipped == {"bioner_edge.benchmarks.studies"} and shipped <= tree, "studies are run from a checkout"


def _folder(package: str) -> Path:
    """Where the files of a package lie in the tree."""
    _, *rest = package.split(".")
    return ROOT.joinpath(*rest) if rest and rest[0] in FOLDERS else ROOT / package.replace(".", "/")


def test_every_data_file_is_shipped() -> None:
    shipped = {
        found
        for package, patterns in SETTINGS["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for found in _folder(package).glob(pattern)
    }
    files = {p for f in FOLDERS for p in (ROOT / f).rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert files - shipped - set(modules()) == set()


@pytest.mark.parametrize("statement", ["import bioner_edge", "import bioner_edge.cli"])
def test_the_core_imports_nothing_heavy(statement: str) -> None:
    heavy = {
        "torch",
        "transformers",
        "peft",
        "huggingface_hub",
        "llama_cpp",
        "numpy",
        "gguf",
        "onnx",
        "onnxruntime",
        "safetensors",
        "matplotlib",
        "tokenizers",
    }
    assert imported_by(statement) & heavy == set()


def test_the_process_that_writes_loads_nothing_that_a_model_needs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Naloxone.")
    code = f"""
import sys
from bioner_edge.cli import main
sys.argv = ["bioner-edge", "extract", {str(tmp_path / "a.txt")!r}, "--out", {str(tmp_path / "o.jsonl")!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code
"""
    assert loaded_by(code) & {"numpy", "llama_cpp", "onnxruntime", "jinja2", "bioner_edge.loading"} == set()


@pytest.mark.parametrize(
    "words", ["", "--help", "--version", "extract --help", "bench run --help", "models pull --help"]
)
def test_help_loads_nothing_that_only_a_verb_needs(words: str) -> None:
    """It is there at once: of our own modules it needs the command line, and what `import bioner_edge` loads; where it
    names the file formats, those."""
    loaded = loaded_by(f"from bioner_edge.cli import app; app({words.split()}, standalone_mode=False)")
    own = {name for name in loaded if name.split(".")[0] in FOLDERS}
    assert "bioner_edge.cli" in own
    may = AT_ONCE | (loaded_by("import bioner_edge.io.registry") if words == "extract --help" else set())
    assert {name for name in own if not name.startswith("bioner_edge.cli")} - may == set()
    assert loaded & {"rich", "mmap", "tomllib"} == set()


def test_the_two_outer_folders_are_imported_under_the_package_alone() -> None:
    loaded = imported_by("import bioner_edge.convert, bioner_edge.benchmarks")
    assert "bioner_edge" in loaded
    assert loaded & {"convert", "benchmarks"} == set()


def bindings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """The names that statements bind, each with its statement; those under `if` and `try` included."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            each = (name for target in targets for name in getattr(target, "elts", [target]))
            yield from ((name.id, node) for name in each if isinstance(name, ast.Name))
        elif isinstance(node, ast.If | ast.Try):
            yield from bindings(node.body)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_all_names_what_is_public(path: Path) -> None:
    """Every name in `__all__` exists, every public function and class is in it; decorated ones may be commands."""
    bound = dict(bindings(ast.parse(path.read_text("utf-8")).body))
    named = set(ast.literal_eval(bound["__all__"].value)) if "__all__" in bound else set()  # type: ignore[attr-defined]
    assert named - bound.keys() == set(), "named in __all__, but not there"
    public = {
        name
        for name, node in bound.items()
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and not node.decorator_list)
        if not name.startswith("_")
    }
    if path.name != "__main__.py":  # run, never imported
        assert public - named == set(), "public, but not in __all__"


def test_what_the_package_names_can_be_had() -> None:
    assert [name for name in bioner_edge.__all__ if not hasattr(bioner_edge, name)] == []


def test_the_readme_opens_with_the_demo_and_the_tests() -> None:
    """`.ci/run` takes the second command of the first code block."""
    block = README.split("```")[1]
    commands = [line.split("#")[0].strip() for line in block.splitlines()[1:]]
    assert [c for c in commands if c][:2] == ["make demo", "make test"]
