"""Models written for others to load, reloaded and compared, in several forms, and uploaded."""
