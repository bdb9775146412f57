"""Scripts that measured a decision, each with its figures in docs/results.md and the pages beside it."""
