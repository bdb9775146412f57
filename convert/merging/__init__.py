"""A PEFT adapter merged into its base: `adapter` reads it, `plan` finds its places, `merge` computes the weights."""
