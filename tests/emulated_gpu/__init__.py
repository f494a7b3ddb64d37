"""A GPU for machines without one: whole commands run on it, and find what mixes devices (``gpu.cpp`` says how).

The library that ``EMULATED_GPU`` names is loaded here, before torch is, which asks once what a GPU can do. By hand:
``EMULATED_GPU=libgpu.so python tests/emulated_gpu/run.py GIGABYTES clm ...``.
"""

import ctypes
import os

GPU = ctypes.CDLL(os.environ["EMULATED_GPU"])
