"""Verify that a converted file is the model that it was made from: `stages` with the source, `recheck` without it."""
