"""lmtrain: text in; a trained, measured, usable language model out."""

__version__ = "0.1.0"
