"""Options as dataclasses, loading (defaults < file < flags), checks, old names, TrainingArguments' fields."""
