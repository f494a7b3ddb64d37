"""The figures of a run as files, under the names and in the places that the scripts leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmtrain.core.console import amount, counted, duration
from lmtrain.core.files import read_record, write_json
from lmtrain.engine.meter import WORTH_SAYING

# The scripts call it ``perplexity``, without a prefix; bits per byte stand beside it.
MASKED_PERPLEXITY = "masked-token perplexity"  # of hidden tokens given all others: no perplexity of the text
_UNPREFIXED = {"eval_perplexity": "perplexity", "eval_bits_per_byte": "bits_per_byte"}


def named_as_the_scripts_do(metrics: dict[str, Any]) -> dict[str, Any]:
    """``eval_perplexity`` becomes ``perplexity``; the other names stay, those of other splits (``test_``) too."""
    return {_UNPREFIXED.get(name, name): value for name, value in metrics.items()}


def write_results(folder: Path, split: str, metrics: dict[str, Any]) -> None:
    """Write ``{split}_results.json`` and add the figures to ``all_results.json``.

    An infinite perplexity is written as ``Infinity``, which Python's JSON reads back.
    """
    figures = {name: round(value, 10) if isinstance(value, float) else value for name, value in metrics.items()}
    write_json(folder / f"{split}_results.json", dict(sorted(figures.items())))
    everything = folder / "all_results.json"
    write_json(everything, dict(sorted({**read_record(everything), **figures}.items())))


def training_line(metrics: dict[str, Any], steps: int, before: int, tokens: int) -> str:
    """``100 steps · 9.5 M tokens in 30 min 20 s · loss 4.0612 · 5,210 tokens/s``, of a run that began or went on at
    step ``before``; ``tokens`` are those since then, as the time and the speed are."""
    now = steps - before
    made = counted(steps, "step") + (f", {f'{now:,}' if now else 'none'} of them since it went on" if before else "")
    taken = f"{amount(tokens)} tokens in {duration(metrics.get('train_runtime') or 0)}"
    loss = f"loss {metrics['train_loss']:.4f}"
    return " · ".join([made, taken, loss, *_speed(metrics)] if now else [made, loss])


def _speed(metrics: dict[str, Any]) -> list[str]:
    """``5,210 tokens/s``, ``MFU 41%``, and what training waited for data where that is worth a word."""
    parts = [f"{metrics['train_tokens_per_second']:,.0f} tokens/s"]
    if "train_mfu" in metrics:
        parts.append(f"MFU {metrics['train_mfu']:.0%}")
    if metrics.get("train_waiting_for_data", 0) > WORTH_SAYING:
        parts.append(f"{metrics['train_waiting_for_data']:.0%} of the time waiting for data")
    return parts


def summary(metrics: dict[str, Any], objective: str, prefix: str = "eval") -> str:
    """The result in one line: ``loss 4.0612 · perplexity 58.04 · 1.771 bits per byte``."""

    def figure(name: str) -> Any:
        full = f"{prefix}_{name}"
        return metrics.get(_UNPREFIXED.get(full, full))

    kind = MASKED_PERPLEXITY if objective == "mlm" else "perplexity"
    parts = [f"loss {figure('loss'):.4f}", f"{kind} {figure('perplexity'):.2f}"]
    if figure("bits_per_byte") is not None:
        parts.append(f"{figure('bits_per_byte'):.3f} bits per byte")
    parts.append(f"accuracy {figure('accuracy'):.1%} of {counted(figure('tokens'), 'token')}")
    if figure("loss_with_keys") is not None:
        for name in ("with", "without"):
            tokens = figure(f"tokens_{name}_keys")
            shown = f"{figure(f'loss_{name}_keys'):.4f}, perplexity {figure(f'perplexity_{name}_keys'):.2f}"
            share = f" ({shown}, {tokens / max(1, figure('tokens')):.0%} of the tokens)" if tokens else " none"
            parts.append(f"{name} key tokens{share}")
    return " · ".join(parts)
