"""`bioner-edge convert` and `bioner-edge verify`: map options to calls, print the results."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioner_edge.cli.options import guidelines as read_guidelines
from bioner_edge.cli.options import names, write
from bioner_edge.errors import UsageError

if TYPE_CHECKING:
    from bioner_edge.prompts import Value

__all__ = ["convert", "verify"]


def convert(
    base: Annotated[
        Path, typer.Option(help="Folder of the base model, or of a model that is already merged.", metavar="DIR")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the models and their manifests.", metavar="DIR")],
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a PEFT LoRA adapter; a tokenizer in it takes precedence over the base model's. "
            "[default: nothing is merged]",
            metavar="DIR",
        ),
    ] = None,
    to: Annotated[str, typer.Option(help="gguf, a file for llama.cpp, or onnx, a folder for ONNX Runtime.")] = "gguf",
    quant: Annotated[
        str | None,
        typer.Option(
            help="Quantization levels, comma-separated. [default: Q8_0; int8 for ONNX; F32 with --runtime-adapter]",
            metavar="LEVELS",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Entity types that the model was tuned on, comma-separated. [default: none, an untuned model]"
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="Output formats that the model was tuned to write, comma-separated, its default first."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Base name of the files. [default: the adapter's folder, else the base model's]")
    ] = None,
    unit: Annotated[
        str, typer.Option(help="How much text a prompt held in training: document or sentence.")
    ] = "document",
    constraint: Annotated[
        str | None,
        typer.Option(help="Constraint that `extract` uses by default: grounded, gbnf or free. [default: grounded]"),
    ] = None,
    guidelines: Annotated[
        Path | None,
        typer.Option(help='TOML file that explains the types, a line each: label = "what it means".', metavar="FILE"),
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="SPDX identifier of the license. [default: what the model cards say]")
    ] = None,
    runtime_adapter: Annotated[
        bool,
        typer.Option(
            "--runtime-adapter", help="Convert the adapter alone, without merging it, for `extract --adapter`."
        ),
    ] = False,
    qlora_base: Annotated[
        str,
        typer.Option(
            help="What a QLoRA adapter is merged into: original, the base model as it is, or dequantized, its weights "
            "rounded to NF4 and back, which is what the adapter saw in training."
        ),
    ] = "original",
    keep_merged: Annotated[
        bool, typer.Option("--keep-merged", help="Also write NAME-merged, the merged model as safetensors in float32.")
    ] = False,
    importance: Annotated[
        list[Path] | None,
        typer.Option(
            help="In-domain text for an importance matrix, in any file format that `extract` reads; annotations in it "
            "serve as answers. May be repeated.",
            metavar="FILE",
        ),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            help="Quantize the tensors whose names match to this type. May be repeated. [default: the level's own mix]",
            metavar="REGEX=TYPE",
        ),
    ] = None,
    trim_vocab: Annotated[
        list[Path] | None,
        typer.Option(help="Trim the vocabulary to the tokens that this text needs. May be repeated.", metavar="FILE"),
    ] = None,
    exporter: Annotated[
        str,
        typer.Option(
            help="What writes the ONNX graph: builder (onnxruntime-genai's), optimum, or auto, which decides by model "
            "family."
        ),
    ] = "auto",
    pre: Annotated[
        str | None, typer.Option(help="llama.cpp's name for the pre-tokenizer. [default: recognized by its patterns]")
    ] = None,
    template_option: Annotated[
        list[str] | None,
        typer.Option(
            help="Set a variable of the chat template in every prompt from then on, such as enable_thinking=false, or "
            "strftime_now=2026-01-31 for the date that it writes. May be repeated. [default: the template's own; for "
            "the date, the day of the conversion]",
            metavar="NAME=VALUE",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Verify every stage of the conversion; with --no-verify the manifest has no figures.",
        ),
    ] = True,
    verify_text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Your own text to compare token ids on; tokens that differ are shown. May be repeated.",
            metavar="FILE",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Number of threads for quantization. [default: the cores of this process]", min=1)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the paths.")] = False,
) -> None:
    """Merge an adapter into its base model and write verified GGUF files or ONNX folders, each with a manifest.

    Each stage of the verification is printed with its figure and its threshold; if one fails, nothing is left behind.
    Prints the paths of the models.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that partial output is removed
    from bioner_edge.convert import convert as run
    from bioner_edge.convert import convert_adapter
    from bioner_edge.convert.about import About
    from bioner_edge.convert.gguf.quantize import parse_tensor_types
    from bioner_edge.convert.verification.samples import LINES
    from bioner_edge.terminal import Terminal

    about = About.of(
        [folder for folder in (adapter, base) if folder],
        name=name,
        labels=names("--labels", labels) or (),
        formats=names("--format", format) or (),
        unit=unit,
        constraint=constraint,
        license=license,
        guidelines=read_guidelines(guidelines),
    )
    _refuse_name(base)
    if verify_text and not check:
        raise UsageError("--verify-text with --no-verify: nothing would be compared; leave one out")
    report = Terminal(quiet=quiet)
    if runtime_adapter:
        merging = {
            "--importance": importance, "--tensor-type": tensor_type, "--trim-vocab": trim_vocab,
            "--keep-merged": keep_merged, "--verify-text": verify_text, "--pre": pre,
            "--qlora-base": qlora_base != "original", "--threads": threads, "--to": to != "gguf",
            "--exporter": exporter != "auto", "--template-option": template_option,
        }  # fmt: skip
        lone = _lone_adapter(adapter, merging)
        level = quant or "F32"
        paths = [convert_adapter(base, lone, out, about, level=level, check=check, overwrite=overwrite, report=report)]
    else:
        paths = run(
            base,
            out,
            names("--quant", quant) or (),
            about,
            to=to,
            exporter=exporter,
            adapter=adapter,
            qlora_base=qlora_base,
            pre=pre,
            template_options=_template_options(template_option or ()),
            trim_vocab=trim_vocab or (),
            importance=importance or (),
            tensor_types=parse_tensor_types(tensor_type or ()),
            keep_merged=keep_merged,
            check=check,
            verify_lines=[*LINES, *_lines(verify_text or ())],
            threads=threads,
            overwrite=overwrite,
            report=report,
        )
    for path in paths:
        write(f"{path}\n")


def verify(
    files: Annotated[
        list[str], typer.Argument(help="Names of listed models, GGUF files or ONNX folders.", metavar="MODEL")
    ],
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Verify a converted model again, without the checkpoint that it was made from.

    Exit code: 0 every stage holds; 2 one does not, and is named.
    """
    from bioner_edge.convert.verification.recheck import recheck
    from bioner_edge.terminal import Terminal

    report = Terminal(quiet=quiet)
    for file in files:
        recheck(file, report)


def _refuse_name(base: Path) -> None:
    """Raises UsageError for the name of a base model that must be fetched first."""
    from bioner_edge.models import registry

    name, repos = str(base), {row.repo.lower(): key for key, row in registry.bases().items()}
    key = name if name in registry.bases() else repos.get(name.lower())
    if key and not base.exists():
        message = (
            f"no such folder, but a known model; fetch it: bioner-edge models pull {key}, then --base models/{key}"
        )
        raise UsageError(f"--base {name}: {message}")


def _lone_adapter(adapter: Path | None, merging: Mapping[str, object]) -> Path:
    """The adapter to convert alone. Raises UsageError if none is given, or for an option about merging."""
    if adapter is None:
        raise UsageError("--runtime-adapter: give the adapter with --adapter, and its base with --base")
    if given := [option for option, value in merging.items() if value]:
        raise UsageError(f"--runtime-adapter with {given[0]}: an adapter alone is not merged")
    return adapter


def _template_options(given: Sequence[str]) -> dict[str, Value]:
    """Parse NAME=VALUE options: true, false and numbers as in JSON, anything else as text."""
    found: dict[str, Value] = {}
    for option in given:
        name, equals, written = option.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--template-option {option!r}: must be NAME=VALUE, such as enable_thinking=false")
        found[name] = _value(written)
    return found


def _value(written: str) -> Value:
    with suppress(ValueError):
        value = json.loads(written)
        if isinstance(value, bool | int | float) and value == value and abs(value) < math.inf:
            return value
    return written


def _lines(files: Sequence[Path]) -> list[str]:
    """The non-empty lines of the user's files. Raises UsageError for a file that cannot be read."""
    found = []
    for file in files:
        try:
            found += [line for line in file.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--verify-text {file}: {error.strerror if isinstance(error, OSError) else error}"
            ) from None
    return found
