"""The reference model: transformers and peft in float32, which a conversion is compared with.

Checkpoints of transformers 4 and 5 are read with either version (see `hf_config`).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from bioner_edge.convert import hf_config
from bioner_edge.convert.checkpoint import Source
from bioner_edge.convert.merging.merge import Merged
from bioner_edge.errors import ModelError, UsageError

__all__ = ["load", "read", "require"]


def require(base: Path, adapter: Path | None = None) -> None:
    """Raises UsageError where a library of `load` is missing, before any long computation; ModelError where this
    transformers does not support config.json."""
    try:
        import tokenizers  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401

        if adapter is not None:
            import peft  # noqa: F401
        if not (base / "tokenizer.json").is_file() and (base / "tokenizer.model").is_file():
            import sentencepiece  # noqa: F401
    except ImportError as error:
        message = f"verification needs {error.name}: pip install 'bioner-edge[convert]', or skip it with --no-verify"
        raise UsageError(message) from None
    if (base / "config.json").is_file():  # where it is missing, reading the checkpoint raises
        hf_config.record(base)


def load(base: Path, merged: Merged | None = None) -> Any:
    """The torch model in `base`, with the adapter of `merged` merged by peft itself; in float32, without dropout.

    Raises UsageError where a library is missing, ModelError where the folders cannot be loaded.
    """
    require(base, merged.adapter.folder if merged else None)
    model = read(base, **({"tie_word_embeddings": False} if merged and merged.needs_untied_base else {}))
    if merged is None:
        return model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _by_peft(model, merged).eval()
    except Exception as error:
        raise ModelError(f"{merged.adapter.folder}: transformers and peft cannot load it: {_line(error)}") from error


def read(folder: Path, **changes: Any) -> Any:
    """The torch model of a checkpoint, in float32, without dropout; `changes` are made to its config.json.

    Raises ModelError where it cannot be loaded.
    """
    import torch
    import transformers
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    by_class: Any = transformers.AutoModelForCausalLM.from_pretrained
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own deprecations
            model = by_class(
                folder,
                config=hf_config.load(folder, **changes),
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,  # otherwise a folder's own code is prompted for, and run
            )
    except ModelError:
        raise
    except Exception as error:  # they raise anything for a model that they cannot read
        raise ModelError(f"{folder}: transformers and peft cannot load it: {_line(error)}") from error
    return model.eval()


def _by_peft(model: Any, merged: Merged) -> Any:
    """`merge_and_unload` on the base as the adapter saw it: rounded, with its own tokens, and with output and embedding
    untied where peft would add the change of one to both."""
    import peft

    if merged.rounded:
        _copy(merged.base, model)
    adapter, config = merged.adapter, peft.PeftConfig.from_pretrained(str(merged.adapter.folder))
    parted = merged.needs_untied_base
    if parted:
        model.lm_head.weight.data = model.get_input_embeddings().weight.data.clone()
        if "lm_head.weight" in adapter.targets:  # with ensure_weight_tying, peft would add its change twice
            config.target_modules, config.ensure_weight_tying = {*config.target_modules, "lm_head"}, False
    rows = merged.config["vocab_size"]
    resized = rows != model.get_input_embeddings().weight.shape[0]
    if resized:
        model.resize_token_embeddings(rows, mean_resizing=False)
    tuned = peft.PeftModel.from_pretrained(model, adapter.folder, config=config, local_files_only=True)
    beneath = getattr(tuned.get_input_embeddings(), "base_layer", None)
    if parted and resized and beneath is not None and not hasattr(tuned.lm_head, "base_layer"):
        tuned.lm_head.weight.data = beneath.weight.data.clone()  # the resized rows, which a tied output shares
    return tuned.merge_and_unload()


def _copy(source: Source, model: Any) -> None:
    import torch

    parameters = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name in source.shapes():
            parameters[name].copy_(torch.from_numpy(source.tensor(name)))


def _line(error: Exception) -> str:
    """The error in one line, at most as long as a screen is wide."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
