"""Which examples come when, and how they become a model's batches."""
