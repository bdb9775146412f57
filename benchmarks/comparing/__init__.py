"""Whether cells of runs differ: which of them correspond, by how much they differ, and how sure that is."""
