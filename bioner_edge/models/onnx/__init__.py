"""ONNX files as data: folder, graph, weights, read without onnxruntime."""
