"""The sentences of docs/scale.md."""

from __future__ import annotations

HEAD = """# Scale

Made by `make scale` from `benchmarks/scale.json`; do not edit. `python benchmarks/scale.py` measures anew.

What a run on 1, 8, 64 or 1,024 GPUs takes: on paper, and its failures by simulation. For one's own run, with
its own step, its own disk and one's own machines, the same arithmetic is a command:

    lmtrain check clm --train_file book.txt --model_name_or_path ./gpt2 --output_dir runs/book --devices 64 --mtbf 50000

`--mtbf` is the mean time between failures of *one* device with its share of machine and network, in hours:
devices × hours of a past run, divided by its failures. With 64 devices something fails 64 times as often.

Nothing on this page was run on a GPU. Figures that could be measured were, on {machine}; those of GPUs and
networks are what makers and papers state, each named here and each a flag of `lmtrain check`.
"""

PREPARING = """Text is tokenized once, before training, and lies then as a store of two bytes a token (vocabularies up
to 65,536; else four). `lmtrain prepare --shard I/N` shares the files among machines.
"""

STEP = """Each device does {tokens:,} tokens a step. DDP sends gradients as fp32, FSDP2 weights and gradients as bf16;
*sent* is what one device sends, *takes* how long the exchange would take alone, *waited* the share of the step
that computing does not hide. Computing is 6 operations a parameter and token; the update and attention are left
out. *Does not fit*: {why}, is more than 80 GB.
"""

CHECKPOINTS = """Weights and AdamW's state, 12 bytes a parameter. One process copies it and writes the copy while
training goes on; where weights are sharded, each machine writes its part to a disk of its own
(`--store_mbps` where they share one).
"""

FAILURES = """The whole run fails when one device does, and goes on from the newest checkpoint that is on disk. *Save
every* is Daly's interval for the pause, and no shorter than writing takes. *Lost* is the share of the wall time spent
on pauses, on work that is made again, and on restarts: the mean of some 4,000 simulated failures, exponential,
and in bursts (Weibull).
"""

RUNS = """One pass over so many tokens, with its saves and failures, and how many failures to expect. What fits one GPU
runs under DDP, the rest under FSDP2. A global batch of 1,024 × 16,384 tokens is more than a small model can
use: those columns say what time costs, not what trains well.
"""

TAIL = """## Formulas

- Exchange: ring of Patarasuk & Yuan 2009 inside a machine, halving and doubling of Thakur, Rabenseifner & Gropp
  2005 between them; a message takes latency + bytes / rate.
- Volumes: Rajbhandari et al. 2020 (ZeRO). Overlap of buckets with the backward pass: Li et al. 2020 (PyTorch
  Distributed).
- Interval: Young 1974, √(2 · pause · time between failures); Daly 2006 corrects it and gives the expected time,
  which the simulation meets within 2 % (`tests/rehearsal/scale`).

Left out: what exchange takes from computing beside it, contention on links and switches, slow devices,
evaluation, and devices that stay away after they failed.
"""
