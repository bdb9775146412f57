"""Which libraries are installed, and whether they meet the requirements of `bioner-edge`, from package metadata."""

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
"""Libraries that only some features need."""


def library_of(requirement: str) -> str:
    """The library named in a requirement: `numpy` in `numpy>=1.26`."""
    return Requirement(requirement).name


def meets(version: str, requirement: str) -> bool:
    """Whether a version meets a requirement: 0.3.36+cpu meets `==0.3.36`. Raises packaging's InvalidVersion for an
    invalid version."""
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def version(library: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
