"""The conversion target GGUF."""
