"""The exporter "builder": onnxruntime-genai's model builder, whose graphs are of onnxruntime's own fused nodes.

Some forty nodes for two layers: GroupQueryAttention rotates, masks, looks back no further than its window, and may
write its cache into the buffer that it reads. Of the builder only the layers are used, in one version, and mended where
they would be those of another model than transformers computes:

- It reads any value of config.json that some model has, so that a key which transformers passes over changes the graph.
  Here it is given no more than what counts.
- It leaves rotary scalings out (linear; yarn unless two keys are written out), computes llama3 from the wrong length,
  and does not find the base in a configuration of transformers 5. Here cosines and sines are those of the torch model.
- It rounds the scale of Gemma's embedding to two decimals.
- It takes the odd layers of Gemma 2 and five of six layers of Gemma 3 for those with a window, all layers of others:
  config.json says which they are.
- SmolLM3 has layers that are not rotated, for which the builder asks for an input that its graph does not have.
- It takes every linear layer with as many rows as the vocabulary for the output, and every such embedding.
- It loads weights as they were saved, and adds Gemma's 1 to norms in bfloat16. Here all is float32 from the start.
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

# Values that the builder reads of every model.
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
_WIDTHS = 16  # of a head's numbers, and of those that are rotated
_INLINE = 1024  # bytes of the smallest tensor that is not in the graph itself


@dataclass(frozen=True, slots=True)
class _Row:
    """How the builder makes one architecture: by which of its classes, and from which further values of config.json.

    `window` tells which layers look no further back than `sliding_window`: "all" where there is one, or "by type" those
    that `layer_types` names; `scaled` that embeddings are multiplied by the root of their width.
    """

    by: str
    values: tuple[str, ...] = ("hidden_act",)
    window: str = "none"
    scaled: bool = False


_GEMMA = ("hidden_activation", "final_logit_softcapping", "query_pre_attn_scalar")
_GRANITE = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")

# The `architectures` entry of config.json -> its row. OLMo 2, whose norms come after attention, is not among them.
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
    """Write the model as `path`, and its tensors beside it.

    Raises ModelError for what the builder's graphs cannot hold, and whatever the builder raises.
    """
    import onnx_ir
    import torch
    from onnxruntime_genai.models import builders

    row = ARCHITECTURES[staged.architecture]
    _refuse_width(staged)
    with torch.inference_mode():
        built = type(row.by, (_Mended, getattr(builders, row.by)), {})(staged, row)
        built.build(staged.model)
        built.model.graph.sort()
        onnx_ir.save(built.model, path, external_data=f"{path.name}.data", size_threshold_bytes=_INLINE)


if TYPE_CHECKING:
    _Layers: Any
else:
    _Layers = object  # one of the builder's classes comes behind it


class _Mended(_Layers):  # type: ignore[misc]
    """What stands before a class of the builder, so that it builds the model that transformers has."""

    def __init__(self, staged: Staged, row: _Row) -> None:
        import onnx_ir

        config, decoder = staged.model.config, staged.model.model
        self._windows, self._rotated = _windows(config, row), _rotated(config)
        self._tables = _tables(decoder, set(self._rotated), staged.context)
        self._layer = 0
        tied = staged.model.lm_head.weight is decoder.embed_tokens.weight
        options = {"prune_lm_head": True, "shared_embeddings": tied}
        float32 = onnx_ir.DataType.FLOAT
        super().__init__(_facts(staged, row), float32, float32, "cpu", "", options)
        if row.scaled:
            self.embed_attrs["scale"] = config.hidden_size**0.5

    def build(self, model: Any) -> None:
        """Make the graph, each part from the module that it is: the builder would find them by their shapes."""
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
        """Gemma 3's. The tables are made where a layer asks for them."""

    def make_rotary_embedding_caches(self, **names: str) -> tuple[str, str]:
        """The tensors with the layer's cosines and sines; no names where it is not rotated."""
        kind = self._rotated[self._layer]
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
    """Raises ModelError for heads that GroupQueryAttention does not take: it would say so when the graph first runs."""
    decoder = staged.model.model
    widths = {"heads of": decoder.layers[0].self_attn.head_dim}
    for cos, _ in _tables(decoder, set(_rotated(staged.model.config)), 1).values():
        widths["heads rotated in"] = 2 * cos.shape[-1]
    for told, width in widths.items():
        if width % _WIDTHS:
            told = f"{told} {width} numbers are not for the exporter builder, only multiples of {_WIDTHS}"
            raise ModelError(f"config.json: {told}; take the exporter optimum")


def _facts(staged: Staged, row: _Row) -> SimpleNamespace:
    """What the builder may know of config.json."""
    config = staged.model.config
    return SimpleNamespace(
        _name_or_path="",
        architectures=[staged.architecture],
        max_position_embeddings=staged.context,
        head_dim=staged.model.model.layers[0].self_attn.head_dim,
        rope_local_base_freq=None,  # Gemma 3's class wants one; its tables are made here
        **{key: getattr(config, key) for key in (*_VALUES, *row.values)},
    )


def _windows(config: Any, row: _Row) -> list[int]:
    """How many tokens each layer sees, itself included; -1 for all."""
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


def _rotated(config: Any) -> list[str]:
    """By which table each layer is rotated: that of its type in Gemma 3, by none in some layers of SmolLM3."""
    layers = config.num_hidden_layers
    if config.model_type == "gemma3_text":
        return list(config.layer_types)
    if config.model_type == "smollm3":
        return [FULL if rotated else _NOT for rotated in config.no_rope_layers[:layers]]
    return [FULL] * layers


def _tables(decoder: Any, kinds: set[str], context: int) -> dict[str, tuple[Any, Any]]:
    """The cosines and sines of the torch model, by type of layer. Shape of each: (context, rotated / 2)"""
    import torch

    like, positions = torch.zeros(1), torch.arange(context)[None]
    local = getattr(decoder, "rotary_emb_local", None)  # Gemma 3 in transformers 4; 5 has one that is told the type
    by_type = local is None and decoder.config.model_type == "gemma3_text"
    found = {}
    for kind in kinds - {_NOT}:
        rotary = local if local is not None and kind == SLIDING else decoder.rotary_emb
        both = rotary(like, positions, kind) if by_type else rotary(like, positions)
        # the second half repeats the first
        cos, sin = (table[0, :, : table.shape[-1] // 2].contiguous() for table in both)
        found[kind] = cos, sin
    return found
