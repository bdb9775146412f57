"""From a checkpoint to a folder that onnxruntime reads: export, the final graph, its levels, its tokenizer."""
