"""Tiny random checkpoints, saved as transformers saves them; nothing here is fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXT = (
    "Naloxone reverses the antihypertensive effect of clonidine in rats.",
    "The patient's blood pressure didn't fall; it rose by 12 mmHg, 2024-01-31.",
    "患者は高血圧を有し、薬を服用していた。 α-Synuclein β1 γδ T cells",
    "    indented    text\r\nwith\tcontrols\n\n\nand 🙂 emoji 🧬",
)
MakeTokenizer = Callable[..., Any]
MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """A function (pre_tokenizer, ignore_merges) -> a byte-level BPE of some 400 tokens in transformers' fast class."""
    pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    def make(pre_tokenizer: Any = None, ignore_merges: bool = False) -> Any:
        bpe = Tokenizer(models.BPE(ignore_merges=ignore_merges))
        bpe.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|end|>", "<|pad|>"],
            show_progress=False,
        )
        bpe.train_from_iterator(TEXT * 4, trainer)
        bpe.add_tokens([AddedToken("<tag>", special=False, normalized=False)])
        return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|pad|>")

    return make


@pytest.fixture(scope="session")
def make_checkpoint(make_tokenizer: MakeTokenizer) -> MakeCheckpoint:
    """A function (folder, tokenizer=None, **config) -> the folder of a saved random Llama."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(folder: Path, tokenizer: Any = None, dtype: str = "float32", **settings: Any) -> Path:
        tokenizer = tokenizer or make_tokenizer()
        wanted: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.1,  # at the usual 0.02 the layers hardly change what passes through them
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        }
        torch.manual_seed(7)
        model = LlamaForCausalLM(LlamaConfig(**{**wanted, **settings}))
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # all 0 and all 1 would hide a mistake
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Llama. Tests that change it copy it first."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tied", tie_word_embeddings=True)
