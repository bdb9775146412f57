"""Hardware of this machine: cores, processor features."""
