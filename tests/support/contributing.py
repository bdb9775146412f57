"""The file format that CONTRIBUTING.md shows."""

from __future__ import annotations

import re
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

from bioner_edge.io.contract import FileFormat

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def shown() -> tuple[str, str]:
    """(its module, its line in the registry)"""
    section = CONTRIBUTING.read_text("utf-8").partition("## A new file format\n")[2].partition("\n## ")[0]
    (module,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (line,) = re.findall(r'^    "bioner_edge\.io\.\w+",\n', section, re.MULTILINE)
    return module, line


def load() -> FileFormat:
    """The format, of a module that lies nowhere."""
    module = module_from_spec(ModuleSpec("bioner_edge.io.mentions", None))
    exec(compile(shown()[0], "CONTRIBUTING.md", "exec"), module.__dict__)
    found: FileFormat = module.FILE_FORMAT
    return found
