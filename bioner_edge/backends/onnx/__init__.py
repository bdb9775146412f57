"""The back end on ONNX Runtime."""
