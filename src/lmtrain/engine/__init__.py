"""The run: trainer, evaluation, run folder, and the assembly that wires the stages together."""
