from stages import runs

__all__ = ["runs"]
