"""Whole jobs as chains of the stages: a training with all that belongs to it, the demo, data to text, gpt2-ft."""
