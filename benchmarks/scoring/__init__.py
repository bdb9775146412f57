"""Score predictions: matching with the gold, counts, intervals; and the ceiling of each format."""
