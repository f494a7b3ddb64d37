"""The page that a model shows on the hub, from the records of the run that made it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lmtrain.core.files import read_record
from lmtrain.models.exporting.exported_files import RECORD

_FIGURES = {
    "eval_loss": "validation loss (nats a token)",
    "perplexity": "validation perplexity",
    "bits_per_byte": "validation bits per byte",
    "eval_accuracy": "validation accuracy",
    "test_loss": "test loss (nats a token)",
    "test_perplexity": "test perplexity",
    "train_loss": "training loss, mean of the run",
}


def model_card(folder: Path, name: str) -> str:
    """Markdown with the header that the hub reads. What the folder has no record of is left out.

    The command is the one in ``run.json``, where secrets were left out when it was written.
    """
    run, data, results, export = (
        read_record(folder / file) for file in ("run.json", "data.json", "all_results.json", RECORD)
    )
    lines = ["---", *_header(folder), "---", "", f"# {name}", "", "Trained with lmtrain.", ""]
    rows = [(text, results[key]) for key, text in _FIGURES.items() if isinstance(results.get(key), int | float)]
    if rows:
        lines += ["| figure | value |", "|---|---|", *(f"| {text} | {value:.4f} |" for text, value in rows), ""]
    if "step" in export:
        lines += [f"The weights are those of step {export['step']} ({export.get('chosen', 'last')}).", ""]
    compared = export.get("compared")
    if isinstance(compared, dict):
        lines += [
            f"After writing, the files were loaded anew and compared with the model in memory: {compared['tensors']} "
            f"tensors equal, largest difference of a logit {compared['difference']:.1e} of the largest "
            f"({compared['allowed']:.0e} allowed).",
            "",
        ]
    if run.get("argv"):
        lines += ["## Command", "", "```sh", shlex.join(["lmtrain", *map(str, run["argv"])]), "```", ""]
    if versions := run.get("versions"):
        lines += ["Versions: " + ", ".join(f"{key} {value}" for key, value in versions.items()) + ".", ""]
    if hashes := _hashes(data):
        lines += ["## Data", "", "SHA-256 of the prepared data:", "", *(f"- {k}: `{v}`" for k, v in hashes), ""]
    return "\n".join(lines)


def _header(folder: Path) -> list[str]:
    """YAML: plain words and names of the hub, which need no quotes."""
    adapter, config = read_record(folder / "adapter_config.json"), read_record(folder / "config.json")
    is_adapter = bool(adapter) and not config
    lines = [f"library_name: {'peft' if is_adapter else 'transformers'}", "tags:", "- lmtrain"]
    classes = " ".join(config.get("architectures") or [])
    if "MaskedLM" in classes:
        lines.append("pipeline_tag: fill-mask")
    elif "CausalLM" in classes or "LMHead" in classes or adapter.get("task_type") == "CAUSAL_LM":
        lines.append("pipeline_tag: text-generation")
    base = adapter.get("base_model_name_or_path") if is_adapter else None
    if base and not Path(base).is_absolute() and not Path(base).exists():
        lines.append(f"base_model: {base}")
    return lines


def _hashes(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Split and hash of each store of the run."""
    stores = data.get("stores")
    if not isinstance(stores, dict):
        return []
    found = [(split, about.get("key")) for split, about in stores.items() if isinstance(about, dict)]
    return [(split, key) for split, key in found if isinstance(key, str)]
