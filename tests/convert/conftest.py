"""Tiny random checkpoints, saved as transformers saves them; nothing here is fetched."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
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

# Family -> its class in transformers, and what its configuration needs to show all that it has: enough layers for each
# kind of them, windows shorter than a text, scales and caps that matter. Spelled as both 4 and 5 take it.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "mistral": ("MistralForCausalLM", {"sliding_window": 256}),
    "smollm3": ("SmolLM3ForCausalLM", {"num_hidden_layers": 5, "tie_word_embeddings": True, "rope_theta": 1000.0}),
    "granite": (
        "GraniteForCausalLM",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.3,
            "logits_scaling": 2.0,
        },
    ),
    "qwen2": ("Qwen2ForCausalLM", {"tie_word_embeddings": True, "rope_theta": 1000.0}),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 32}),
    "gemma2": (
        "Gemma2ForCausalLM",
        {
            "num_hidden_layers": 4,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 16,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        {
            "num_hidden_layers": 7,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 16,
            "rope_theta": 5000.0,
            "rope_local_base_freq": 500.0,
        },
    ),
    "phi3": (
        "Phi3ForCausalLM",
        {
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 2048,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0 + 0.1 * at for at in range(8)],
                "long_factor": [2.0 + 0.5 * at for at in range(8)],
            },
        },
    ),
    "olmo2": ("Olmo2ForCausalLM", {"rope_theta": 1000.0}),
}


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
def families() -> dict[str, str]:
    """What `make_family` makes -> the name of its architecture in config.json."""
    return {family: architecture for family, (architecture, _) in FAMILIES.items()}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def make_family(make_tokenizer: MakeTokenizer) -> MakeCheckpoint:
    """A function (folder, family, tokenizer=None, dtype="float32", gate=None, **config) -> the folder of a saved model.

    `gate` multiplies the gate projections. Gemma's are large unless it is given: llama.cpp looks its activation up in
    a table of float16, which is exact only beyond ±10, and its rounding would hide what a conversion does.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(
        folder: Path,
        family: str,
        tokenizer: Any = None,
        dtype: str = "float32",
        gate: float | None = None,
        **settings: Any,
    ) -> Path:
        architecture, own = FAMILIES[family]
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
            "pad_token_id": None,
        }
        torch.manual_seed(7)
        model_class = getattr(transformers, architecture)
        # transformers writes into the nested settings that it is given
        model = model_class(model_class.config_class(**deepcopy({**wanted, **own, **settings})))
        less_one = family.startswith("gemma")  # norms whose weight is added to 1
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # all 0 and all 1 would hide a mistake
                torch.nn.init.uniform_(parameter, *((-0.5, 0.5) if less_one else (0.5, 1.5)))
            if "gate_proj.weight" in name:
                parameter.data *= (1000.0 if less_one else 1.0) if gate is None else gate
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def make_checkpoint(make_family: MakeCheckpoint) -> MakeCheckpoint:
    """A function (folder, tokenizer=None, **config) -> the folder of a saved random Llama."""

    def make(folder: Path, tokenizer: Any = None, dtype: str = "float32", **settings: Any) -> Path:
        return make_family(folder, "llama", tokenizer, dtype, **settings)

    return make


@pytest.fixture
def exporters_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters run in this process, which saves ten seconds of imports each time."""
    from bioner_edge.convert.onnx import child, export

    def here(exporter: str, folder: Path, work: Path, threads: int) -> None:
        with redirect_stdout(io.StringIO()):  # a process of its own prints into a log
            child.export(exporter, folder, work)

    monkeypatch.setattr(export, "run_exporter", here)


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Llama. Tests that change it copy it first."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tied", tie_word_embeddings=True)
