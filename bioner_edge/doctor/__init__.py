"""Checks of this machine and this installation: each reports on one thing, and none can end the program.

Native code is loaded in a process of its own, because a build for another processor crashes it.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from bioner_edge import __version__
from bioner_edge.backends.kernels import ALL, NO_AMX
from bioner_edge.doctor.child import run_python
from bioner_edge.doctor.installed import EXTRAS, library_of, meets, version
from bioner_edge.errors import BionerError, ModelError
from bioner_edge.hardware.cpu_features import LATE_FEATURES, Cores, build_features, processor
from bioner_edge.models import memory
from bioner_edge.models.sizes import SHAPES

__all__ = ["STATUSES", "Finding", "examine"]

STATUSES = ("ok", "unknown", "warning", "error")
"""From best to worst; unknown is for what this system does not report."""

_LEFT_OUT = frozenset({"AMX_INT8"})  # left out of our builds on purpose, see `_rebuild`
_LEAST_DISK = 2 << 30  # bytes: a base model of 0.5B and its conversions


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's result in one line; `remedy` says what to do about it, `facts` holds the figures behind it."""

    name: str
    status: str
    message: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"check": self.name, "status": self.status, "told": self.message, "remedy": self.remedy, **self.facts}


def examine() -> Iterator[Finding]:
    """Run all checks, one after the other; a check that fails is itself a finding."""
    for name, check in _CHECKS.items():
        try:
            yield from check(name)
        except BionerError as error:
            yield Finding(name, "error", str(error))
        except Exception as error:  # on an unusual system
            yield Finding(name, "unknown", f"this check failed: {type(error).__name__}: {error}")


# --- What is installed


def _system(name: str) -> Iterator[Finding]:
    message = f"bioner-edge {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield Finding(name, "ok", message)


def _libraries(name: str) -> Iterator[Finding]:
    """Core dependencies against their pinned versions, and which optional ones are installed."""
    try:
        lines = metadata.requires("bioner-edge") or []
    except metadata.PackageNotFoundError:
        yield Finding(name, "unknown", "bioner-edge itself is not installed", "pip install .")
        return
    core = [line for line in lines if "extra ==" not in line]
    llama = [line.partition(";")[0].strip() for line in lines if re.search(r"extra == ['\"]llama", line)]
    found = {library_of(line): version(library_of(line)) for line in core}
    for line in (*core, *llama):
        if (there := version(library_of(line))) is None:
            if line in core:
                yield Finding(name, "error", f"{library_of(line)} is not installed", f"pip install '{line}'")
        elif not meets(there, line):
            yield Finding(
                name, "error", f"{library_of(line)} {there} is installed, but {line} is needed", f"pip install '{line}'"
            )
    extras = {library: version(library) for library in EXTRAS}
    here = [f"{library} {there}" for library, there in found.items() if there]
    yield Finding(name, "ok", ", ".join(here), facts={"versions": found})
    optional = ", ".join(f"{library} {there or '–'}" for library, there in extras.items())
    yield Finding("optional", "ok", optional, facts={"versions": extras})


# --- The machine


def _processor(name: str) -> Iterator[Finding]:
    """The processor's features against those that llama.cpp was built for."""
    cpu, release = processor(), version("llama-cpp-python")
    if release is None:
        message = f"{cpu.name}; llama-cpp-python is not installed: only ONNX models can be run"
        yield Finding(name, "ok", message, "for GGUF models: pip install 'bioner-edge[llama]'")
        return
    rebuild = _rebuild(release)
    code = "import json; from bioner_edge.backends.native import library; print(json.dumps(library()[1]))"
    try:
        system_info = run_python(code)
    except ModelError as error:
        yield Finding(name, "error", f"{cpu.name}; loading llama.cpp: {error}", f"build it here: {rebuild}")
        return
    built = build_features(system_info)
    facts = {"processor": cpu.name, "has": _sort(cpu.features), "built_for": _sort(built), "says": system_info}
    if cpu.features is None or built is None:
        which = "the processor" if cpu.features is None else "llama.cpp"
        yield Finding(name, "unknown", f"{cpu.name}; {which} does not report its features", facts=facts)
    elif lacking := built - cpu.features - LATE_FEATURES:
        message = (
            f"{cpu.name} lacks {', '.join(sorted(lacking))}, which llama.cpp {release} was built for: it will crash"
        )
        yield Finding(name, "error", message, f"build it here: {rebuild}", facts)
    elif unreported := built - cpu.features:
        message = (
            f"{cpu.name}; this system does not report {', '.join(sorted(unreported))}, which llama.cpp {release} was"
        )
        remedy = f"nothing, if a speed is shown below; else build it here: {rebuild}"
        yield Finding(name, "warning", f"{message} built for: it may be an old one", remedy, facts)
    elif unused := cpu.features - built - _LEFT_OUT:
        message = (
            f"{cpu.name} has {', '.join(sorted(unused))}, which llama.cpp {release} was not built to use: it is slower"
        )
        yield Finding(name, "warning", message, f"build it here, without GGML_NATIVE=OFF: {rebuild}", facts)
    else:
        used = ", ".join(sorted(built - _LEFT_OUT)) or "no special features"
        tried = "; whether its AMX kernels work is tried below" if built & _LEFT_OUT else ""
        yield Finding(name, "ok", f"{cpu.name}; llama.cpp {release} uses all that it can: {used}{tried}", facts=facts)


def _rebuild(release: str) -> str:
    """The command that builds llama.cpp for this processor, without the kernels that GCC 12.2 breaks; see `kernels`."""
    return (
        'CFLAGS=-U__AMX_INT8__ CXXFLAGS=-U__AMX_INT8__ CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --force-reinstall '
        f"--no-deps --no-cache-dir --no-binary llama-cpp-python llama-cpp-python=={release}"
    )


def _kernels(name: str) -> Iterator[Finding]:
    """Whether the kernels of llama.cpp that are used here work, tried in a process of their own."""
    if (release := version("llama-cpp-python")) is None:
        return
    found = run_python("import json; from bioner_edge.doctor.speed_check import kernels; print(json.dumps(kernels()))")
    used, failed, facts = found["used"], found["failed"], {"used": found["used"]}
    if failed and not found["certain"]:
        yield Finding(name, "unknown", f"the kernels of llama.cpp could not be tried: {failed}", facts=facts)
    elif failed:
        message = f"a step of several tokens fails with llama.cpp {release}: {failed}"
        yield Finding(name, "error", message, f"build it here: {_rebuild(release)}", facts)
    elif used == ALL:
        yield Finding(name, "ok", "a step of several tokens works with all kernels of llama.cpp", facts=facts)
    else:
        left = "AMX is left out" if used == NO_AMX else "no repacked kernels are used"
        message = (
            f"the AMX kernels of this build of llama.cpp {release} crash or give wrong results: GCC before "
            f"12.4 drops most of their tile configuration. {left}, and everything works"
        )
        yield Finding(name, "warning", message, f"build it without them: {_rebuild(release)}", facts)


def _sort(features: frozenset[str] | None) -> list[str] | None:
    return None if features is None else sorted(features)


def _cores(name: str) -> Iterator[Finding]:
    found = Cores.here()
    message = f"{found.used} threads will be used"
    message += f", of {found.machine} that the machine has" if found.used < found.machine else ""
    shared = found.physical is not None and found.physical < found.used
    message += f"; they share {found.physical} cores, as hyper-threads" if shared else ""
    if found.quota is not None and found.quota < found.machine:
        message += f"; a control group grants the time of {found.quota:g}"
    if found.load is not None and found.load >= found.used:
        message += f"; other programs keep {found.load:.1f} of them busy, and the speed below is not what it could be"
        yield Finding(name, "warning", message, "look again when they have ended", asdict(found))
    else:
        remedy = f"--threads {found.physical} may be as fast, or faster" if shared else ""
        yield Finding(name, "ok", message, remedy, asdict(found))


def _memory(name: str) -> Iterator[Finding]:
    """Free memory, and which common model sizes fit into it."""
    free = memory.available()
    sizes = {shape.name: shape.by_level() for shape in SHAPES}
    facts = {"free_bytes": free, "needed_bytes": sizes}
    if free is None:
        yield Finding(name, "unknown", "this system does not report free memory", facts=facts)
    elif not any(needs <= free for levels in sizes.values() for needs in levels.values()):
        message = f"{free / 1e9:.1f} GB free, too little for any but the smallest models"
        yield Finding(name, "warning", message, "end other programs, or raise the limit of this one", facts)
    else:
        yield Finding(name, "ok", f"{free / 1e9:.1f} GB free", facts=facts)


def _disk(name: str) -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    message, enough = f"{free / 1e9:.1f} GB free in {Path.cwd()}", free >= _LEAST_DISK
    remedy = "" if enough else "pull and convert models in a folder with more room"
    yield Finding(name, "ok" if enough else "warning", message, remedy, {"free_bytes": free})


# --- Models and corpora


def _models(name: str) -> Iterator[Finding]:
    """Listed models against their hashes."""
    from bioner_edge.models import registry
    from bioner_edge.models.verify import verify_files

    for model in registry.listed_models():
        for check in verify_files([model]):
            status, remedy = (
                ("ok", "") if check.holds else ("error", "install bioner-edge, or convert the model, again")
            )
            message = f"{model}: the hash is as listed" if check.holds else f"{model}: {check.message}"
            yield Finding(name, status, message, remedy)


def _corpora(name: str) -> Iterator[Finding]:
    from bioner_edge.corpora.named import corpora_dir, entries

    try:
        folder = corpora_dir()
    except BionerError as error:
        yield Finding(name, "ok", f"none, which only bench and tune need: {error}")
        return
    splits = [f"{e.name}:{s.name}" for e in entries().values() for s in e.splits.values() if s.found(folder)]
    message = f"{len(splits)} splits of {len({name.partition(':')[0] for name in splits})} corpora in {folder}"
    yield Finding(name, "ok", message, facts={"found": splits})


# --- Speed


def _speed(name: str) -> Iterator[Finding]:
    """The speed of the bundled model."""
    found = run_python("import json; from bioner_edge.doctor.speed_check import measure; print(json.dumps(measure()))")
    message = (
        f"{found['model']}, {found['threads']} threads: reads {found['prefill_tokens_per_s']:,.0f} tokens/s, "
        f"writes {found['decode_tokens_per_s']:,.0f}; {found['documents_per_s']:.1f} short abstracts/s; "
        f"loaded in {found['load_s']:.2f} s"
    )
    yield Finding(name, "ok", message, facts=found)


_CHECKS: Mapping[str, Callable[[str], Iterator[Finding]]] = {
    "system": _system,
    "libraries": _libraries,
    "processor": _processor,
    "kernels": _kernels,
    "cores": _cores,
    "memory": _memory,
    "disk": _disk,
    "models": _models,
    "corpora": _corpora,
    "speed": _speed,
}
