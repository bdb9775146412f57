"""Tiny ONNX models of both kinds of caches, with the same random weights, and the same model in numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]

VOCABULARY, WIDTH, HEADS, KEPT, SIZE, LAYERS = 264, 32, 4, 2, 16, 2  # the tokenizer knows 259
CONTEXT = 1024
TYPES = {"f32": 1, "int32": 6, "int64": 7, "f16": 10}  # onnx.TensorProto.DataType
RUNTIME = {
    "context": CONTEXT,
    "bos": None,
    "end_tokens": [256],
    "bos_token": "",
    "eos_token": "<|end|>",
    "chat_template": None,
}


def weights(seed: int = 0) -> dict[str, Array]:
    """Matrices by name, and the cosines and sines of the rotary embedding."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, int]] = {"embedding": (VOCABULARY, WIDTH), "head": (WIDTH, VOCABULARY)}
    for n in range(LAYERS):
        shapes |= {f"{n}.q": (WIDTH, HEADS * SIZE), f"{n}.k": (WIDTH, KEPT * SIZE), f"{n}.v": (WIDTH, KEPT * SIZE)}
        shapes |= {f"{n}.o": (HEADS * SIZE, WIDTH), f"{n}.up": (WIDTH, 48), f"{n}.down": (48, WIDTH)}
    made: dict[str, Array] = {
        name: (random.standard_normal(shape) * (1.0 if name == "embedding" else shape[0] ** -0.5)).astype(np.float32)
        for name, shape in shapes.items()
    }
    angles = np.arange(CONTEXT)[:, None] * 100.0 ** (-np.arange(0, SIZE, 2) / SIZE)
    return made | {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}


def in_numpy(ids: list[int], seed: int = 0) -> Array:
    """The logits after `ids`, in float64: (vocabulary,)."""
    w = {name: matrix.astype(np.float64) for name, matrix in weights(seed).items()}
    count = len(ids)
    x = w["embedding"][ids]
    cos, sin = w["cos"][:count, None], w["sin"][:count, None]

    def heads(flat: Array, rotate: bool) -> Array:
        split = flat.reshape(count, -1, SIZE)
        a, b = split[..., : SIZE // 2], split[..., SIZE // 2 :]
        turned = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1) if rotate else split
        return turned.repeat(HEADS // turned.shape[1], 1).transpose(1, 0, 2)

    for n in range(LAYERS):
        q, k, v = heads(x @ w[f"{n}.q"], True), heads(x @ w[f"{n}.k"], True), heads(x @ w[f"{n}.v"], False)
        scores = np.where(np.tri(count, dtype=bool), q @ k.transpose(0, 2, 1) * SIZE**-0.5, -np.inf)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (share / share.sum(-1, keepdims=True)) @ v
        x = x + mixed.transpose(1, 0, 2).reshape(count, -1) @ w[f"{n}.o"]
        x = x + np.tanh(x @ w[f"{n}.up"]) @ w[f"{n}.down"]
    logits: Array = x[-1] @ w["head"]
    return logits


@dataclass
class Draft:
    """A graph that is being written; a test may change it before it is saved."""

    cache: str
    positions: bool
    pruned: bool
    seed: int
    nodes: list[Any] = field(default_factory=list)
    inputs: dict[str, tuple[str, list[int | str]]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, list[int | str]]] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)

    def node(self, operator: str, *inputs: str, out: Sequence[str] = (), domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        names = list(out) or [f"{operator}{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names[0]

    def number(self, *values: int) -> str:
        """A constant: a scalar for one value, else a vector."""
        name = f"numbers{len(self.tensors)}"
        self.tensors[name] = np.array(values if len(values) > 1 else values[0], np.int64)
        return name

    def axes(self, axis: int) -> str:
        name = f"axes{len(self.tensors)}"
        self.tensors[name] = np.array([axis], np.int64)
        return name

    def draw(self) -> Draft:
        """The whole network: attention and a layer of neurons, without any norm."""
        self.tensors |= weights(self.seed)
        self.inputs |= {"input_ids": ("int64", ["B", "n"]), "attention_mask": ("int64", ["B", "total"])}
        if self.positions:
            self.inputs["position_ids"] = ("int64", ["B", "n"])
        self.outputs["logits"] = ("f32", ["B", 1 if self.pruned else "n", VOCABULARY])
        attention = self.fused() if self.cache == "shared" else self.plain()
        x = self.node("Gather", "embedding", "input_ids")
        for n in range(LAYERS):
            for part in ("key", "value"):
                self.inputs[f"past_key_values.{n}.{part}"] = ("f32", ["B", KEPT, "past", SIZE])
                self.outputs[f"present.{n}.{part}"] = ("f32", ["B", KEPT, "total", SIZE])
            mixed = attention(n, *(self.node("MatMul", x, f"{n}.{name}") for name in "qkv"))
            x = self.node("Add", x, self.node("MatMul", mixed, f"{n}.o"))
            up = self.node("Tanh", self.node("MatMul", x, f"{n}.up"))
            x = self.node("Add", x, self.node("MatMul", up, f"{n}.down"))
        if self.pruned:
            x = self.node("Gather", x, self.axes(-1), axis=1)
        self.node("MatMul", x, "head", out=["logits"])
        return self

    def fused(self) -> Callable[..., str]:
        """One operator for attention, which writes into the past."""
        total = self.node("Gather", self.node("Shape", "attention_mask"), self.number(1))
        total = self.node("Cast", total, to=TYPES["int32"])
        filled = self.node("ReduceSum", "attention_mask", self.axes(1), keepdims=0)
        last = self.node("Cast", self.node("Sub", filled, self.number(1)), to=TYPES["int32"])

        def attention(n: int, q: str, k: str, v: str) -> str:
            past = [f"past_key_values.{n}.key", f"past_key_values.{n}.value"]
            return self.node(
                "GroupQueryAttention",
                *(q, k, v, *past, last, total, "cos", "sin"),
                out=[f"mixed{n}", f"present.{n}.key", f"present.{n}.value"],
                domain="com.microsoft",
                num_heads=HEADS,
                kv_num_heads=KEPT,
                do_rotary=1,
            )

        return attention

    def plain(self) -> Callable[..., str]:
        """ONNX's own operators, which put the new positions behind the past."""
        places = "position_ids"
        cos, sin = (self.node("Unsqueeze", self.node("Gather", t, places), self.axes(1)) for t in ("cos", "sin"))
        total = self.node("Gather", self.node("Shape", "attention_mask"), self.number(1))
        seen = self.node("Range", self.number(0), total, self.number(1))
        reader = self.node("Unsqueeze", places, self.number(1, 2, 4))  # (B, 1, 1, n, 1)
        visible = self.node("LessOrEqual", seen, reader)
        self.tensors |= {"zero": np.float32(0), "never": np.float32(-1e9), "scale": np.float32(SIZE**-0.5)}

        def heads(flat: str, count: int, rotate: bool) -> str:
            split = self.node(
                "Transpose", self.node("Reshape", flat, self.number(0, 0, count, SIZE)), perm=[0, 2, 1, 3]
            )
            if not rotate:
                return split
            a, b = f"{split}.a", f"{split}.b"
            self.node("Split", split, out=[a, b], axis=-1, num_outputs=2)
            left = self.node("Sub", self.node("Mul", a, cos), self.node("Mul", b, sin))
            right = self.node("Add", self.node("Mul", b, cos), self.node("Mul", a, sin))
            return self.node("Concat", left, right, axis=-1)

        def attention(n: int, q: str, k: str, v: str) -> str:
            grown = []
            for part, new in (("key", heads(k, KEPT, True)), ("value", heads(v, KEPT, False))):
                name = f"present.{n}.{part}"
                self.node("Concat", f"past_key_values.{n}.{part}", new, axis=2, out=[name])
                grown.append(self.node("Unsqueeze", name, self.axes(2)))
            asked = self.node("Reshape", heads(q, HEADS, True), self.number(0, KEPT, HEADS // KEPT, -1, SIZE))
            scores = self.node("MatMul", asked, self.node("Transpose", grown[0], perm=[0, 1, 2, 4, 3]))
            scores = self.node("Where", visible, self.node("Mul", scores, "scale"), "never")
            mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), grown[1])
            mixed = self.node("Reshape", mixed, self.number(0, HEADS, -1, SIZE))
            return self.node(
                "Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), self.number(0, 0, HEADS * SIZE)
            )

        return attention

    def save(self, folder: Path) -> None:
        import onnx
        from onnx import helper, numpy_helper

        def values(described: dict[str, tuple[str, list[int | str]]]) -> list[Any]:
            return [helper.make_tensor_value_info(name, TYPES[kind], dims) for name, (kind, dims) in described.items()]

        tensors = [numpy_helper.from_array(tensor, name) for name, tensor in self.tensors.items()]
        graph = helper.make_graph(self.nodes, "toy", values(self.inputs), values(self.outputs), tensors)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        external = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 1024}
        onnx.save_model(model, folder / "model.onnx", **external)


def tokenizer() -> dict[str, Any]:
    """A tokenizer.json: the 256 bytes, the end, and two words, so that some texts can be spelled in several ways."""
    from bioner_edge.backends.byte_level import BYTES

    vocabulary = {BYTES[byte]: byte for byte in range(256)} | {"<|end|>": 256, "in": 257, "ing": 258}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 256, "content": "<|end|>", **flags}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [["i", "n"], ["in", "g"]],
        },
    }


class Toy:
    """The model as a folder, and in numpy."""

    vocabulary_size = VOCABULARY
    context = CONTEXT
    logits = staticmethod(in_numpy)

    @staticmethod
    def make(
        folder: Path,
        cache: str,
        change: Callable[[Draft], object] = lambda _: None,
        *,
        positions: bool | None = None,
        pruned: bool = True,
        seed: int = 0,
        **runtime: Any,
    ) -> Path:
        """A folder; `change` may change the graph before it is saved, `runtime` what runtime.json says."""
        pytest.importorskip("onnx")
        folder.mkdir()
        draft = Draft(cache, positions if positions is not None else cache == "grown", pruned, seed).draw()
        change(draft)
        draft.save(folder)
        (folder / "runtime.json").write_text(json.dumps(RUNTIME | {"cache": cache} | runtime))
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
        return folder


@pytest.fixture(scope="session")
def toy() -> type[Toy]:
    """What makes tiny ONNX models: `toy.make`."""
    return Toy
