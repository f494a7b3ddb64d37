"""Names, folders and options to a model and a tokenizer that fit each other."""
