"""The importance matrix against a forward pass in numpy, and against what a hook of torch's own sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bioner_edge.convert.gguf.imatrix import importance
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.report import Advance, Report

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 24,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
SEQUENCES = [[3, 1, 4, 1, 5, 9, 2, 6], [], [5], [3, 5, 8]]
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_up_proj": "ffn_up",
}
NAMES = {
    f"model.layers.{n}.{theirs}.weight": f"blk.{n}.{ours}.weight" for n in (0, 1) for theirs, ours in LAYER.items()
}
NAMES |= {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight"}


def make(family: str = "Llama", **settings: Any) -> Any:
    torch.manual_seed(5)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **settings})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def inputs_by_hand(model: Any, ids: list[int]) -> dict[str, NDArray[np.float64]]:
    """What goes into each matrix of a Llama of one layer. Shape: (tokens, inputs)"""
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    here = "model.layers.0."

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return np.asarray(x / np.sqrt((x**2).mean(1, keepdims=True) + model.config.rms_norm_eps) * w[f"{name}.weight"])

    def turned(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rotary positions; shape: (tokens, 4), the width of a head."""
        angle = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(0, 4, 2) / 4)
        cos, sin = np.tile(np.cos(angle), 2), np.tile(np.sin(angle), 2)
        return np.asarray(x * cos + np.concatenate([-x[:, 2:], x[:, :2]], 1) * sin)

    x = w["model.embed_tokens.weight"][ids]
    attention = norm(x, f"{here}input_layernorm")
    q, k, v = (attention @ w[f"{here}self_attn.{p}_proj.weight"].T for p in "qkv")
    heads = []
    for head in (q[:, :4], q[:, 4:]):  # they share the one head of k and v
        scores = turned(head) @ turned(k).T / 2
        scores[np.triu_indices(len(ids), 1)] = -np.inf
        shares = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(shares / shares.sum(1, keepdims=True) @ v)
    mixed = np.concatenate(heads, 1)
    x = x + mixed @ w[f"{here}self_attn.o_proj.weight"].T
    feed = norm(x, f"{here}post_attention_layernorm")
    gate = feed @ w[f"{here}mlp.gate_proj.weight"].T
    hidden = gate / (1 + np.exp(-gate)) * (feed @ w[f"{here}mlp.up_proj.weight"].T)
    x = x + hidden @ w[f"{here}mlp.down_proj.weight"].T
    return {
        "blk.0.attn_q": attention,
        "blk.0.attn_k": attention,
        "blk.0.attn_v": attention,
        "blk.0.attn_output": mixed,
        "blk.0.ffn_gate": feed,
        "blk.0.ffn_up": feed,
        "blk.0.ffn_down": hidden,
        "output": norm(x, "model.norm"),
    }


def test_equals_a_forward_pass_by_hand() -> None:
    model = make()
    found = importance(model, NAMES, SEQUENCES)
    by_hand = [inputs_by_hand(model, ids) for ids in SEQUENCES if ids]
    assert set(found) == {f"{name}.weight" for name in by_hand[0]}
    for name in by_hand[0]:
        every = np.concatenate([inputs[name] for inputs in by_hand])
        assert every.shape[0] == 12 and found[f"{name}.weight"].dtype == np.float32
        np.testing.assert_allclose(found[f"{name}.weight"], (every**2).mean(0), rtol=1e-5)


def test_an_output_that_is_the_embedding_stays_out() -> None:
    model = make(tie_word_embeddings=True)
    names = {theirs: ours for theirs, ours in NAMES.items() if theirs != "lm_head.weight"}
    found = importance(model, names, SEQUENCES)
    assert not {"token_embd.weight", "output.weight"} & set(found) and len(found) == 7


def test_fused_matrices_are_one_layer() -> None:
    model = make("Phi3")
    found = importance(model, NAMES, SEQUENCES)
    parts = {"attn_qkv": 8, "attn_output": 8, "ffn_up": 8, "ffn_down": 12}
    assert {name: values.shape for name, values in found.items()} == {
        "output.weight": (8,),
        **{f"blk.0.{part}.weight": (inputs,) for part, inputs in parts.items()},
    }


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3", "Gemma2", "Gemma3", "Mistral", "Olmo2", "Granite", "SmolLM3"])
def test_every_family_equals_what_its_layers_see(family: str) -> None:
    prefix = "Gemma3Text" if family == "Gemma3" else family
    if not hasattr(transformers, f"{family}ForCausalLM"):
        pytest.skip(f"this transformers has no {family}")
    torch.manual_seed(5)
    sizes = {**SIZES, "num_hidden_layers": 2, "head_dim": 4}
    config = getattr(transformers, f"{prefix}Config")(**sizes, tie_word_embeddings=False)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    seen: dict[str, list[NDArray[np.float32]]] = {}
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: seen.setdefault(name, []).append(inputs[0][0].numpy())
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.inference_mode():
        for ids in filter(None, SEQUENCES):
            model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    found = importance(model, NAMES, SEQUENCES)
    assert {NAMES[f"{name}.weight"] for name in seen} == set(found) and len(found) == 15
    for name, inputs in seen.items():
        rows = np.concatenate(inputs)
        np.testing.assert_allclose(found[NAMES[f"{name}.weight"]], (rows.astype(np.float64) ** 2).mean(0), rtol=1e-5)


def test_progress_and_the_model_as_it_was() -> None:
    model = make()
    heard: list[Any] = []

    class Listener(Report):
        @contextmanager
        def progress(self, what: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Advance]:
            heard.append((total, unit))
            yield lambda steps=1, note="": heard.append(steps)

    importance(model, NAMES, SEQUENCES, Listener())
    assert heard == [(12, "tokens"), 8, 1, 3]
    with torch.inference_mode():
        assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 24)  # the hook that cuts is gone
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_vocabulary_is_multiplied_for_one_token_only() -> None:
    """At 152k tokens of 512 positions its logits alone would take 0.3 GB, and a third of the time."""
    model = make()
    shapes: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    importance(model, NAMES, SEQUENCES)
    assert shapes == [(1, 1, 24)] * 3


def test_hooks_go_where_the_pass_fails() -> None:
    model = make()
    with pytest.raises(IndexError):
        importance(model, NAMES, [[1, 99]])
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("sequences", [[], [[]]])
def test_no_tokens(sequences: list[list[int]]) -> None:
    with pytest.raises(UsageError, match=r"^an importance matrix needs text, but there are no tokens$"):
        importance(make(), NAMES, sequences)


def test_a_layer_without_a_name() -> None:
    names = {theirs: ours for theirs, ours in NAMES.items() if "up_proj" not in theirs}
    with pytest.raises(ModelError, match=re.escape("layer 'model.layers.0.mlp.up_proj' has no tensor in the GGUF")):
        importance(make(), names, SEQUENCES)


def test_a_layer_that_is_passed_by() -> None:
    model = make()
    model.extra = torch.nn.Linear(3, 3)
    with pytest.raises(ModelError, match=r"x\.weight received 0 of 12 tokens; convert without --importance"):
        importance(model, {**NAMES, "extra.weight": "x.weight"}, SEQUENCES)


def test_inputs_that_are_not_finite() -> None:
    model = make()
    model.model.norm.weight.data[3] = float("inf")
    with pytest.raises(ModelError, match=r"inputs of output\.weight are not finite"):
        importance(model, NAMES, SEQUENCES)
