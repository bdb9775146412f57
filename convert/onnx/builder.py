"""The exporter "builder": onnxruntime-genai's model builder, whose graphs use onnxruntime's own fused nodes.

Two layers take about forty nodes: GroupQueryAttention rotates, masks, limits attention to the window, and can write its
cache into the buffer that it reads. Only the builder's layers are used, in one version, with corrections where they
would differ from what transformers computes:

- It reads every value of config.json that some model has, so a key that transformers ignores changes the graph. Here it
is given only the values that apply. - It omits rotary scaling (linear; yarn unless two keys are written out), computes
llama3 from the wrong length, and does not find the base in a configuration of transformers 5. Here cosines and sines
are those of the torch model. - It rounds the scale of Gemma's embedding to two decimals. - It treats the odd layers of
Gemma 2, five of six layers of Gemma 3 and all layers of other models as sliding-window layers; here config.json
decides. - It asks for an input that its graph does not have in the layers of SmolLM3 without rotary embedding. - It
takes every linear layer with as many rows as the vocabulary for the output, and every such embedding likewise. - It
loads weights in their saved type, and adds Gemma's 1 to norms in bfloat16. Here all is float32 from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bioner_edge.convert.architectures.config import positive
from bioner_edge.convert.architectures.rope import FULL, SLIDING
from bioner_edge.convert.onnx.torch_model import Staged
from bioner_edge.errors import ModelError

__all__ = ["ARCHITECTURES", "VERSION", "write"]

VERSION = "0.12.2"  # later ones cannot be imported with transformers 4.57

# Values that the builder reads for every model.
_VALUES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "vocab_size",
)
_NOT = "not rotated"
_WIDTHS = 16  # head width and rotated width must be multiples of it
_INLINE = 1024  # bytes of the smallest tensor stored outside the graph


@dataclass(frozen=True, slots=True)
class _Row:
    """How the builder makes one architecture: its class, and the further values of config.json to pass.

    `window` says which layers are limited to `sliding_window`: "all" where it is set, or "by type" those that
    `layer_types` names; `scaled` says that embeddings are multiplied by the root of their width.
    """

    by: str
    values: tuple[str, ...] = ("hidden_act",)
    window: str = "none"
    scaled: bool = False


_GEMMA = ("hidden_activation", "final_logit_softcapping", "query_pre_attn_scalar")
_GRANITE = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")

# The `architectures` entry of config.json -> its row. OLMo 2, with norms after attention, is not supported.
ARCHITECTURES: dict[str, _Row] = {
    "LlamaForCausalLM": _Row("LlamaModel"),
    "MistralForCausalLM": _Row("MistralModel", window="all"),
    "SmolLM3ForCausalLM": _Row("LlamaModel", window="by type"),
    "GraniteForCausalLM": _Row("GraniteModel", ("hidden_act", *_GRANITE)),
    "Qwen2ForCausalLM": _Row("QwenModel", window="by type"),
    "Qwen3ForCausalLM": _Row("Qwen3Model", window="by type"),
    "Gemma2ForCausalLM": _Row("Gemma2Model", (*_GEMMA, "attn_logit_softcapping"), window="by type", scaled=True),
    "Gemma3ForCausalLM": _Row("Gemma3Model", _GEMMA, window="by type", scaled=True),
    "Phi3ForCausalLM": _Row("Phi3MiniModel", window="all"),
}


def write(staged: Staged, path: Path) -> None:
    """Write the model as `path`, with its tensors beside it.

    Raises ModelError for what the builder's graphs cannot represent, and whatever the builder raises.
    """
    import onnx_ir
    import torch
    from onnxruntime_genai.models import builders

    row = ARCHITECTURES[staged.architecture]
    _refuse_width(staged)
    with torch.inference_mode():
        built = type(row.by, (_Corrected, getattr(builders, row.by)), {})(staged, row)
        built.build(staged.model)
        built.model.graph.sort()
        onnx_ir.save(built.model, path, external_data=f"{path.name}.data", size_threshold_bytes=_INLINE)


if TYPE_CHECKING:
    _Layers: Any
else:
    _Layers = object  # the builder's class follows it in the MRO


class _Corrected(_Layers):  # type: ignore[misc]
    """A mixin before a builder class that makes it build the model as transformers computes it."""

    def __init__(self, staged: Staged, row: _Row) -> None:
        import onnx_ir

        config, decoder = staged.model.config, staged.model.model
        self._windows, self._table_names = _windows(config, row), _table_names(config)
        self._tables = _tables(decoder, set(self._table_names), staged.context)
        self._layer = 0
        tied = staged.model.lm_head.weight is decoder.embed_tokens.weight
        options = {"prune_lm_head": True, "shared_embeddings": tied}
        float32 = onnx_ir.DataType.FLOAT
        super().__init__(_facts(staged, row), float32, float32, "cpu", "", options)
        if row.scaled:
            self.embed_attrs["scale"] = config.hidden_size**0.5

    def build(self, model: Any) -> None:
        """Build the graph from named modules: the builder would identify them by shape."""
        self.make_inputs_and_outputs()
        self.make_preprocessing_nodes()
        self.make_embedding(model.model.embed_tokens.weight)
        for number, layer in enumerate(model.model.layers):
            self.make_layer(number, layer)
        simple = self.layernorm_attrs["simple"]
        self.make_layernorm(self.num_layers, model.model.norm, skip=True, simple=simple, location="final_norm")
        self.make_lm_head(model.lm_head)

    def make_layer(self, layer_id: int, layer: Any) -> None:
        self._layer, self.window_size = layer_id, self._windows[layer_id]
        super().make_layer(layer_id, layer)

    def is_local(self, layer_id: int) -> bool:
        return self._windows[layer_id] > 0

    def make_rotary_embedding_multi_cache(self, **names: str) -> None:
        """Gemma 3's; the tables are made when a layer requests them."""

    def make_rotary_embedding_caches(self, **names: str) -> tuple[str, str]:
        """The tensors with the layer's cosines and sines; empty names where it is not rotated."""
        kind = self._table_names[self._layer]
        if kind == _NOT:
            return "", ""
        found = f"cos_cache_{kind}", f"sin_cache_{kind}"
        if found[0] not in self.values:
            for name, table in zip(found, self._tables[kind], strict=True):
                self.make_initializer(table, name)
        return found

    def make_group_query_attention(self, name: str, **inputs: str) -> None:
        self.attention_attrs["use_rope_in_attn"] = bool(inputs["cos_cache"])
        super().make_group_query_attention(name, **inputs)
        self.attention_attrs["use_rope_in_attn"] = True


def _refuse_width(staged: Staged) -> None:
    """Raises ModelError for head widths that GroupQueryAttention refuses, which it would report only when the graph
    runs."""
    decoder = staged.model.model
    widths = {"heads of": decoder.layers[0].self_attn.head_dim}
    for cos, _ in _tables(decoder, set(_table_names(staged.model.config)), 1).values():
        widths["heads rotated in"] = 2 * cos.shape[-1]
    for what, width in widths.items():
        if width % _WIDTHS:
            message = (
                f"{what} {width} dimensions need the exporter optimum; the builder supports only multiples of {_WIDTHS}"
            )
            raise ModelError(f"config.json: {message}")


def _facts(staged: Staged, row: _Row) -> SimpleNamespace:
    """The values of config.json that the builder may see."""
    config = staged.model.config
    return SimpleNamespace(
        _name_or_path="",
        architectures=[staged.architecture],
        max_position_embeddings=staged.context,
        head_dim=staged.model.model.layers[0].self_attn.head_dim,
        rope_local_base_freq=None,  # Gemma 3's class requires it; its tables are made here
        **{key: getattr(config, key) for key in (*_VALUES, *row.values)},
    )


def _windows(config: Any, row: _Row) -> list[int]:
    """How many tokens each layer attends to, including the current one; -1 for all."""
    layers, width = config.num_hidden_layers, getattr(config, "sliding_window", None)
    if row.window == "by type":
        kinds = list(config.layer_types)
    else:
        kinds = [SLIDING if row.window == "all" and width is not None else FULL] * layers
    if len(kinds) != layers or set(kinds) - {FULL, SLIDING}:
        raise ModelError(f"config.json: layer_types must hold {SLIDING} or {FULL} for each of {layers} layers")
    if SLIDING not in kinds:
        return [-1] * layers
    seen = positive({"sliding_window": width}, "sliding_window")
    return [seen if kind == SLIDING else -1 for kind in kinds]


def _table_names(config: Any) -> list[str]:
    """Each layer's rotary table: in Gemma 3 that of its type, none for some layers of SmolLM3."""
    layers = config.num_hidden_layers
    if config.model_type == "gemma3_text":
        return list(config.layer_types)
    if config.model_type == "smollm3":
        return [FULL if rotated else _NOT for rotated in config.no_rope_layers[:layers]]
    return [FULL] * layers


def _tables(decoder: Any, kinds: set[str], context: int) -> dict[str, tuple[Any, Any]]:
    """The torch model's cosines and sines by type of layer. Shape of each: (context, rotated / 2)"""
    import torch

    like, positions = torch.zeros(1), torch.arange(context)[None]
    local = getattr(decoder, "rotary_emb_local", None)  # Gemma 3 in transformers 4; 5 has one that takes the type
    by_type = local is None and decoder.config.model_type == "gemma3_text"
    found = {}
    for kind in kinds - {_NOT}:
        rotary = local if local is not None and kind == SLIDING else decoder.rotary_emb
        both = rotary(like, positions, kind) if by_type else rotary(like, positions)
        # the second half repeats the first
        cos, sin = (table[0, :, : table.shape[-1] // 2].contiguous() for table in both)
        found[kind] = cos, sin
    return found
