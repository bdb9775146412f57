"""What each model family needs to become a GGUF: a table of facts, one module per family or close relatives.

A row says which GGUF architecture it is, which tensors must be there and how they are shaped, which of them change on
the way, which metadata follow from config.json, and which of its values cannot be converted. A new family is a row in a
module and in the table. What llama.cpp computes was read in its sources (src/models, as llama-cpp-python 0.3.36 has
them) and is held against transformers by tests.
"""

from __future__ import annotations

from bioner_edge.convert.architectures import gemma, llama, olmo, phi, qwen
from bioner_edge.convert.architectures.config import Config, positive
from bioner_edge.convert.architectures.contract import Architecture, Weights
from bioner_edge.errors import ModelError, unknown_name

__all__ = ["ARCHITECTURES", "Architecture", "Config", "Weights", "of", "positive"]

# The `architectures` entry of config.json -> its row.
ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": llama.LLAMA,
    "MistralForCausalLM": llama.MISTRAL,
    "SmolLM3ForCausalLM": llama.SMOLLM3,
    "GraniteForCausalLM": llama.GRANITE,
    "Qwen2ForCausalLM": qwen.QWEN2,
    "Qwen3ForCausalLM": qwen.QWEN3,
    "Gemma2ForCausalLM": gemma.GEMMA2,
    "Gemma3ForCausalLM": gemma.GEMMA3,
    "Phi3ForCausalLM": phi.PHI3,
    "Olmo2ForCausalLM": olmo.OLMO2,
}

# What is close to a row, and is none -> what to do.
_ALMOST = {
    "Gemma3ForConditionalGeneration": "it reads images too: save its language_model as Gemma3ForCausalLM, use that",
}


def of(config: Config) -> Architecture:
    """The row of config.json's architecture.

    Raises ModelError for one that is not in the table, and for values that llama.cpp would not compute with.
    """
    named = config.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else "none given"
    if name not in ARCHITECTURES:
        todo = _ALMOST.get(name, "use a model of one of these")
        raise ModelError(f"config.json: {unknown_name('architecture', name, ARCHITECTURES)}; {todo}")
    architecture = ARCHITECTURES[name]
    architecture.metadata(config)
    architecture.made(config)
    return architecture
