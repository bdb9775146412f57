"""Text processing without a model: tokens, sentences, chunks."""
