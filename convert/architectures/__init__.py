"""How each model family is converted to GGUF: a table of rows, one module per family or group of related families.

A row gives the GGUF architecture, the required tensors and their shapes, the tensors that are changed on conversion,
the metadata derived from config.json, and the values that cannot be converted. A new family is a row in a module and in
the table. What llama.cpp computes was read in its sources (src/models, as of llama-cpp-python 0.3.36); tests compare it
with transformers.
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

# Unsupported architectures related to a row -> what to do.
_ALMOST = {
    "Gemma3ForConditionalGeneration": "it is multimodal: save its language_model as Gemma3ForCausalLM and use that",
}


def of(config: Config) -> Architecture:
    """The row of config.json's architecture.

    Raises ModelError for an unknown architecture and for values that llama.cpp does not support.
    """
    named = config.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else "none given"
    if name not in ARCHITECTURES:
        todo = _ALMOST.get(name, "use a model of one of these")
        raise ModelError(f"config.json: {unknown_name('architecture', name, ARCHITECTURES)}; {todo}")
    architecture = ARCHITECTURES[name]
    architecture.metadata(config)
    architecture.derived_tensors(config)
    return architecture
