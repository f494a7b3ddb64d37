"""Fast paths, precision, threads, memory and sizes: chosen by trying, proven, and written down."""
