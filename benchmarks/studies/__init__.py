"""Scripts that measured a decision, each with its figures in benchmarks/README.md."""
