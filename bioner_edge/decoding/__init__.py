"""Constrained decoding: byte automata, the vocabulary trie that lifts them to tokens, and the loop."""
