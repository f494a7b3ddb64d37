"""What the output of a filter depends on, by option: the same command goes on, another one is refused by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lmtrain.config.commands.filter import FilterOptions
from lmtrain.core.addresses import shown
from lmtrain.data.filter.segment import Job
from lmtrain.data.filter.shards import Format

_NAMED = (
    "dataset_name", "dataset_config_name", "text_column", "documents", "encoding", "encoding_errors", "on_bad_record",
    "path_column", "deduplicate", "near_threshold", "shard_bytes", "mix",
)  # fmt: skip


def settings_of(options: FilterOptions, job: Job, form: Format) -> dict[str, Any]:
    """The settings, as JSON has them."""
    ruled = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(job.rules).items()}
    return {
        "source": [shown(path) for path in options.train_file or ()],
        **ruled,
        **{name: getattr(options, name) for name in _NAMED},
        **({"dataset_split": options.dataset_split} if options.dataset_name else {}),
        **({"seed": options.seed} if options.mix else {}),
        "format": form,
        "segment_bytes": job.segment_bytes,
    }
