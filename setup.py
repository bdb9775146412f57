"""Copies models.toml into the package; everything else is said in pyproject.toml.

The file stands at the repository's root, where people look for it. In an editable install nothing is copied: there
the loader reads the checkout's own.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file("models.toml", str(Path(self.build_lib, "bioner_edge", "models.toml")))


setup(cmdclass={"build_py": BuildPy})
