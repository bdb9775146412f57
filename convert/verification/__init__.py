"""Is a converted file the model that it was made from? `stages` has the checks in order, `recheck` those without it."""
