"""Unpack a GGUF file to a checkpoint, to make other levels of a model whose checkpoint is not available.

    python -m bioner_edge.benchmarks.studies.unpack chemdis-9m build/unpacked --tokenizer chemdis-9m-onnx
    bioner-edge convert --base build/unpacked/chemdis-9m --out dist --quant F32,Q8_0,Q6_K,Q5_K_M,Q4_K_M,IQ4_XS,Q4_0 \\
        --labels Chemical,Disease --format multi_tag --unit sentence

The weights are the file's, converted to float32: precision lost in quantization is not restored. For a Q8_0 file the
loss is small (a mean KL divergence of 0.001 for the bundled model), and Q8_0 made again is bit-identical; but F32, F16
and BF16 made from it are no better. The tokenizer is that of an ONNX folder of the same model. Needs the extra
`[convert]`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bioner_edge.errors import BionerError, ModelError, UsageError
from bioner_edge.models import gguf_header, registry
from bioner_edge.models.onnx.folder import Runtime

__all__ = ["main", "unpack"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 for a model that cannot be unpacked."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.unpack", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", help="a listed model's name or a GGUF file")
    parser.add_argument("out", type=Path, help="the folder to make the checkpoint's folder in")
    parser.add_argument("--tokenizer", required=True, help="an ONNX model, by name or folder, with the same tokenizer")
    asked = parser.parse_args(arguments)
    try:
        print(unpack(registry.find(asked.model)[0], asked.out, registry.find(asked.tokenizer)[0]))
    except BionerError as error:
        print(f"unpack: {error}", file=sys.stderr)
        return 2
    return 0


def unpack(model: Path, out: Path, tokenizer: Path) -> Path:
    """Unpack a GGUF file to a checkpoint in `out`, in a folder of the model's name. Raises UsageError and
    ModelError."""
    import torch
    from transformers import AutoModelForCausalLM

    if model.is_dir() or not tokenizer.is_dir():
        raise UsageError("a GGUF file is unpacked, with the tokenizer of an ONNX folder")
    runtime, header = Runtime.load(tokenizer), gguf_header.check(model)
    words = len(json.loads((tokenizer / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
    tokens = header.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, gguf_header.Array) or words > tokens.length:
        raise ModelError(f"{tokenizer}: has {words} tokens, more than {model}; give the ONNX model of the same model")
    network = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32)
    network.config.update({"bos_token_id": runtime.bos, "eos_token_id": list(runtime.end_tokens)})
    folder = out / model.stem.rpartition("-")[0]
    network.save_pretrained(folder)
    shutil.copy(tokenizer / "tokenizer.json", folder)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": runtime.bos_token or None,
        "eos_token": runtime.eos_token or None,
        "chat_template": runtime.chat_template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2), "utf-8")
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
