"""Scripts that measured single decisions; their figures are in docs/results.md and the pages beside it."""
