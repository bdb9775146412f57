"""File formats, the inputs and outputs of a run, and the journal from which `--resume` continues."""
