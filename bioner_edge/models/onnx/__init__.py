"""ONNX models read as data, without onnxruntime: folder, graph, weights."""
