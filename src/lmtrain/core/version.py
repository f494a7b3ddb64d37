"""The version of the package, where everything below its face finds it."""

__version__ = "0.1.0"
