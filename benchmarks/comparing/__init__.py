"""Compare cells of runs: which of them correspond, how much they differ, and whether that is significant."""
