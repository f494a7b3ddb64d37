"""Imported before torch by the processes of the tests: products are made with the kernels that a command takes."""

from __future__ import annotations

from lmtrain.core.mkl import use_intel_kernels

use_intel_kernels()
