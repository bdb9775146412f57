"""Which libraries are installed, and whether they are what `bioner-edge` asks for, as the metadata of packages say."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

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
    return Requirement(requirement).name


def meets(version: str, requirement: str) -> bool:
    """Whether a version is one that a requirement allows: `==0.3.36` allows the build 0.3.36+cpu too. Raises
    packaging's InvalidVersion for a version that is not written as Python packages write theirs."""
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def version(library: str) -> str | None:
    """The version that is installed; None where none is."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
