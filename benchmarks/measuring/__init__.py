"""What one process measures of one model: speed, memory, energy; and what it reads with, baselines among them."""
