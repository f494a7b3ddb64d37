"""A run is a folder: what it holds, what a command finds there, and where it goes on."""
