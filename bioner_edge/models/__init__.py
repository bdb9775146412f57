"""Model files: names, hashes, manifests, the hub, memory."""
