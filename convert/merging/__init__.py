"""Merge a PEFT adapter into its base: `adapter` reads it, `plan` matches its tensors, `merge` computes the weights."""
