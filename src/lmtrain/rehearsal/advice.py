"""What would make a step faster, with the reason from what was measured: nothing that was not seen to cost."""

from __future__ import annotations

from lmtrain.core.mkl import lacks_compiler
from lmtrain.engine.meter import WORTH_SAYING
from lmtrain.engine.speed.batch_size import CHECKPOINTING
from lmtrain.engine.speed.precision import choose_precision
from lmtrain.engine.trainer import LMTrainer
from lmtrain.rehearsal.anatomy import Anatomy

_LARGE_HEAD = 0.3  # shares of a step's time from which a part is worth a remark
_LARGE_UPDATE = 0.15
_MUCH_PADDING = 0.05
_LITTLE = 0.03  # a gain below that is within what the clock scatters


def advice(anatomy: Anatomy, trainer: LMTrainer, without_dropout: Anatomy | None = None) -> list[str]:
    """One line for each thing to change. ``without_dropout``: a step measured without attention dropout."""
    found = [_attention_dropout(anatomy, without_dropout), _precision(anatomy, trainer), _compiler(anatomy)]
    found += [_data(anatomy, trainer), _padding(anatomy), _head(anatomy, trainer)]
    found += [_update(anatomy, trainer), _recomputing(trainer)]
    return [line for line in found if line]


def _attention_dropout(anatomy: Anatomy, without: Anatomy | None) -> str | None:
    if without is None:
        return None
    gain = 1 - without.step_seconds / anatomy.step_seconds
    if gain < _LITTLE:
        return None
    return (
        f"attention dropout keeps attention off its fast kernel: with --attention_dropout 0 a step was {gain:.0%} "
        "shorter (measured); it changes what is learned, so it is left to you"
    )


def _precision(anatomy: Anatomy, trainer: LMTrainer) -> str | None:
    better = choose_precision("auto", trainer.args.device)
    if better.name == anatomy.precision:
        return None
    return f"products run in {anatomy.precision}; --precision {better.name}: {better.reason}"


def _compiler(anatomy: Anatomy) -> str | None:
    if (anatomy.peak.device, anatomy.precision) != ("cpu", "fp32") or not lacks_compiler():
        return None
    return "there is no C compiler (cc); with one, MKL has faster kernels for this AMD processor (docs/speed.md)"


def _data(anatomy: Anatomy, trainer: LMTrainer) -> str | None:
    share = anatomy.share("data")
    if share <= WORTH_SAYING:
        return None
    workers = trainer.args.dataloader_num_workers
    return f"{share:.0%} of the time waits for data; --dataloader_num_workers {workers + 2} prepares it ahead"


def _padding(anatomy: Anatomy) -> str | None:
    if anatomy.padding <= _MUCH_PADDING:
        return None
    return (
        f"{anatomy.padding:.0%} of the positions are padding, multiplied for nothing; blocks have none "
        "(leave out --pad_to_max_length or --line_by_line where the text allows)"
    )


def _head(anatomy: Anatomy, trainer: LMTrainer) -> str | None:
    share = anatomy.share("head")
    if share < _LARGE_HEAD:
        return None
    why = "; ".join(trainer.fast_paths.lines)
    vocabulary = getattr(trainer.model.config.get_text_config(), "vocab_size", None)
    size = f" of {vocabulary:,} ids" if vocabulary else ""
    return f"{share:.0%} of the time goes into the head{size} and the loss" + (
        f": {why}" if why else "; a smaller vocabulary would make it cheaper"
    )


def _update(anatomy: Anatomy, trainer: LMTrainer) -> str | None:
    share = anatomy.share("optimizer")
    if share < _LARGE_UPDATE:
        return None
    return (
        f"{share:.0%} of the time goes into the update, which costs the same for any batch; a larger global batch "
        "spreads it over more tokens (--per_device_train_batch_size, --gradient_accumulation_steps), and changes the "
        "training"
    )


def _recomputing(trainer: LMTrainer) -> str | None:
    if not getattr(trainer.args, CHECKPOINTING):
        return None
    return f"activations are computed twice to save memory (--{CHECKPOINTING}); --auto_batch does so only if it must"
