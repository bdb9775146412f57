"""Convert a checkpoint to an ONNX folder: export, final graph, levels, tokenizer."""
