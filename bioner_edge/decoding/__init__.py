"""Constrained decoding: byte automata, token masks over a vocabulary trie, and the decode loop."""
