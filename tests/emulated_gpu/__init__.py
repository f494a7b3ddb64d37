"""A GPU for machines without one: whole commands run on it, and find what mixes devices (``gpu.cpp`` says how)."""
