"""Run folders to pages and plots. Empty so far."""
