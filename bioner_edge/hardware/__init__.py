"""What this machine has: cores, processor features."""
