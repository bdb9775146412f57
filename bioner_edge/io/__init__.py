"""Documents in and out: file formats, the inputs and outputs of a run, and what `--resume` goes on from."""
