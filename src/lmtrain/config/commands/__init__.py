"""The options that belong to one command alone."""
