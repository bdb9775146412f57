"""`bioner-edge convert` and `bioner-edge verify`: options to one call each, and what is seen of it on the terminal."""

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
    base: Annotated[Path, typer.Option(help="Folder of the base model, or of a merged one.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="Folder for the files and their manifests.", metavar="DIR")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT LoRA adapter.", metavar="DIR")] = None,
    to: Annotated[str, typer.Option(help="What it becomes: gguf, or onnx, a folder for onnxruntime.")] = "gguf",
    quant: Annotated[
        str | None,
        typer.Option(
            help="Quantization levels, comma-separated. [default: Q8_0; int8 of onnx; F32 of an adapter alone]",
            metavar="LEVELS",
        ),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Entity types that it knows, comma-separated.")] = None,
    format: Annotated[
        str | None, typer.Option(help="Formats that it was tuned to write, comma-separated, its default first.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the files. [default: the adapter's or base's folder]")
    ] = None,
    unit: Annotated[str, typer.Option(help="How much text a prompt holds: document or sentence.")] = "document",
    guidelines: Annotated[Path | None, typer.Option(help='TOML file: label = "what it means".', metavar="FILE")] = None,
    license: Annotated[str | None, typer.Option(help="SPDX identifier. [default: from the model cards]")] = None,
    runtime_adapter: Annotated[
        bool, typer.Option("--runtime-adapter", help="Convert the adapter alone, for `extract --adapter`.")
    ] = False,
    qlora_base: Annotated[
        str,
        typer.Option(
            help="What a QLoRA adapter is merged into: the original weights, or these rounded to NF4 and back "
            "(dequantized), which is what it saw in training."
        ),
    ] = "original",
    keep_merged: Annotated[
        bool, typer.Option("--keep-merged", help="Leave the merged model as safetensors too.")
    ] = False,
    importance: Annotated[
        list[Path] | None,
        typer.Option(help="Text of your domain, for an importance matrix; may be repeated.", metavar="FILE"),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(help="The type of the tensors whose names match; may be repeated.", metavar="REGEX=TYPE"),
    ] = None,
    trim_vocab: Annotated[
        list[Path] | None,
        typer.Option(help="Keep only the tokens that these texts need; may be repeated.", metavar="FILE"),
    ] = None,
    exporter: Annotated[
        str, typer.Option(help="What writes ONNX: builder (onnxruntime-genai's), optimum, or auto, by the family.")
    ] = "auto",
    pre: Annotated[
        str | None, typer.Option(help="llama.cpp's name of the pre-tokenizer. [default: recognised]")
    ] = None,
    template_option: Annotated[
        list[str] | None,
        typer.Option(
            help="What the chat template asks for, as enable_thinking=false; strftime_now=2026-01-31 is the date that "
            "it writes, by default today's. May be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Prove that the files are the same model.")
    ] = True,
    verify_text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Your own text to compare token ids on; a token that differs is shown. May be repeated.",
            metavar="FILE",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the quantization. [default: the cores of this process]", min=1)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the files alone.")] = False,
) -> None:
    """Merge an adapter into its base and leave verified GGUF files, or ONNX folders, each with a manifest.

    Every stage of the verification is printed with its figure and its threshold; when one fails, nothing is left.
    Prints the paths of the models.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is cleared away
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
        license=license,
        guidelines=read_guidelines(guidelines),
    )
    _refuse_name(base)
    if verify_text and not check:
        raise UsageError("--verify-text with --no-verify: nothing would be compared; leave one out")
    with Terminal(quiet=quiet) as report:
        if runtime_adapter:
            merging = {
                "--importance": importance, "--tensor-type": tensor_type, "--trim-vocab": trim_vocab,
                "--keep-merged": keep_merged, "--verify-text": verify_text, "--pre": pre,
                "--qlora-base": qlora_base != "original", "--threads": threads, "--to": to != "gguf",
                "--exporter": exporter != "auto", "--template-option": template_option,
            }  # fmt: skip
            alone = _alone(adapter, merging)
            level = quant or "F32"
            paths = [
                convert_adapter(base, alone, out, about, level=level, check=check, overwrite=overwrite, report=report)
            ]
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
        list[str], typer.Argument(help="Listed models' names, GGUF files or ONNX folders.", metavar="MODEL")
    ],
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but an error.")] = False,
) -> None:
    """Repeat what can be verified of a converted file without what it was made from.

    Exit code: 0 every stage holds; 2 one does not, and is named.
    """
    from bioner_edge.convert.verification.recheck import recheck
    from bioner_edge.terminal import Terminal

    with Terminal(quiet=quiet) as report:
        for file in files:
            recheck(file, report)


def _refuse_name(base: Path) -> None:
    """Raises UsageError for the name of a base model that has to be fetched first."""
    from bioner_edge.models import registry

    name, repos = str(base), {row.repo.lower(): key for key, row in registry.bases().items()}
    key = name if name in registry.bases() else repos.get(name.lower())
    if key and not base.exists():
        message = f"no such folder, but a model to fetch: bioner-edge models pull {key}, then --base models/{key}"
        raise UsageError(f"--base {name}: {message}")


def _alone(adapter: Path | None, merging: Mapping[str, object]) -> Path:
    """The adapter that is converted alone. Raises UsageError where there is none, or an option is about merging."""
    if adapter is None:
        raise UsageError("--runtime-adapter: give the adapter with --adapter, and its base with --base")
    if given := [option for option, value in merging.items() if value]:
        raise UsageError(f"--runtime-adapter with {given[0]}: an adapter alone is not merged")
    return adapter


def _template_options(given: Sequence[str]) -> dict[str, Value]:
    """NAME=VALUE: true, false and numbers as JSON has them, anything else is text."""
    found: dict[str, Value] = {}
    for option in given:
        name, equals, written = option.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--template-option {option!r}: must be NAME=VALUE, as enable_thinking=false")
        found[name] = _value(written)
    return found


def _value(written: str) -> Value:
    with suppress(ValueError):
        value = json.loads(written)
        if isinstance(value, bool | int | float) and value == value and abs(value) < math.inf:
            return value
    return written


def _lines(files: Sequence[Path]) -> list[str]:
    """The lines of the user's files that are not empty. Raises UsageError for a file that cannot be read."""
    found = []
    for file in files:
        try:
            found += [line for line in file.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--verify-text {file}: {error.strerror if isinstance(error, OSError) else error}"
            ) from None
    return found
