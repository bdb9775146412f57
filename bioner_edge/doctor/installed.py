"""Which libraries are installed, and whether they are what `bioner-edge` asks for, as the metadata of packages say."""

from __future__ import annotations

import re
from importlib import metadata

__all__ = ["EXTRAS", "library_of", "meets", "version"]

EXTRAS = (
    "llama-cpp-python",
    "gguf",
    "torch",
    "transformers",
    "peft",
    "onnx",
    "onnxruntime-genai",
    "optimum-onnx",
    "huggingface-hub",
    "matplotlib",
)
"""Libraries that some of what it can do needs, and nothing else."""


def library_of(requirement: str) -> str:
    """The library that a requirement is about: `numpy` of `numpy>=1.26`."""
    return re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]


def meets(version: str, requirement: str) -> bool:
    """Whether a version is the one that is pinned, or as new as is asked for."""
    mine = _numbers(version.partition("+")[0])
    bounds = [(operator, _numbers(bound)) for operator, bound in re.findall(r"(==|>=)\s*([\d.]+)", requirement)]
    return all(mine == bound if operator == "==" else mine >= bound for operator, bound in bounds)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def version(library: str) -> str | None:
    """The version that is installed; None where none is."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
