"""Text before any model: tokens, sentences, chunks."""
