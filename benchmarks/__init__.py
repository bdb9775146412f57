"""Measuring: accuracy, speed, memory and cost of models on a corpus. Installed as `bioner_edge.benchmarks`."""
