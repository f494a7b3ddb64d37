"""Figures of hardware that nobody measured here: the defaults of the flags of ``lmtrain check``, each with its source.

Rates of links are what the maker states for one device and one direction. Exchanges reach somewhat less of it; who has
measured theirs (``all_reduce_perf`` of nccl-tests prints it as *busbw*) gives that instead.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` in ``unit``, and where it is from."""

    value: float
    unit: str
    source: str


DEVICES_PER_NODE = Figure(8, "devices", "NVIDIA DGX H100: eight GPUs in a machine")
NODE_LINK_GBPS = Figure(
    3600, "Gbit/s", "NVLink 4 of an H100, one direction: 450 of the 900 GB/s that NVIDIA states for both"
)
LINK_GBPS = Figure(400, "Gbit/s", "NVIDIA DGX H100: a 400 Gbit/s adapter (ConnectX-7) for each GPU")
NODE_LATENCY = Figure(5e-6, "s", "assumed: some microseconds to start a copy on a GPU and signal its neighbour")
LATENCY = Figure(10e-6, "s", "assumed: two such starts and a switch or two between")
DEVICE_TFLOPS = Figure(
    400, "TFLOP/s",
    "what a GPU delivered in the training of Llama 3 405B on 8,192 to 16,384 H100s, 38 to 43 % of its peak "
    "(Grattafiori et al. 2024, table 4: 380 to 430)",
)  # fmt: skip
MTBF_HOURS = Figure(
    50_000, "h",
    "419 unexpected interruptions in 54 days of 16,384 GPUs (Grattafiori et al. 2024, section 3.3.4): "
    "16,384 × 54 × 24 h / 419 = 50,700 h a GPU",
)  # fmt: skip
WEIBULL_SHAPE = Figure(
    0.7, "", "times between failures of computers in use: Weibull of shape 0.7 to 0.8 (Schroeder & Gibson 2006)"
)
