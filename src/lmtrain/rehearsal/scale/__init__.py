"""A run on many devices, on paper and by simulation: what it takes to prepare, to exchange, to save and to fail.

Formulas and NumPy; neither torch nor a machine is needed. ``lmtrain check --devices N`` puts measured figures in
(``rehearsal.other_machines``), ``docs/scale.md`` recorded ones (``benchmarks/scale_page.py``)::

    network      links and machines            → seconds of an exchange
    exchange     a step of DDP and FSDP2       → what of it the backward pass does not hide
    preparation  text at a measured rate       → hours, bytes of store
    saves        bytes at a measured rate      → how long a step waits, when a checkpoint counts
    intervals    Young's and Daly's formulas   → how often to save
    failures     a seeded simulation           → what is lost
"""
