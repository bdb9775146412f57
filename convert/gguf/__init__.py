"""GGUF as a target of conversion."""
