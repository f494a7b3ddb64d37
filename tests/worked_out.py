"""Imported by the server that tests fork their processes from (forked.py): what each would work out once is known."""

from __future__ import annotations

import torch
from transformers import conversion_mapping

from lmtrain.config.flags import flag_table
from lmtrain.engine.speed.machine import peak_of

torch.set_num_threads(1)
conversion_mapping.get_checkpoint_conversion_mapping("gpt2")  # a thousand regular expressions: 0.4 s
flag_table("clm")  # the library's fields, read from its source
peak_of(torch.device("cpu"), "fp32")
