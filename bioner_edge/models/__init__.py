"""Model files: names, hashes, manifests, the Hugging Face hub, memory."""
