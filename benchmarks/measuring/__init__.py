"""What one process measures of one model: speed, memory, energy."""
