"""Whole jobs as chains of the stages: the demo."""
