"""A model that is sharded already: it is trained as it is, and each process writes and reads its part of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model

from lmtrain.core.errors import UserError
from lmtrain.engine.checkpoints.read import OPTIMIZER_GROUPS, SHARDED_OPTIMIZER, SHARDED_WEIGHTS, has_shards
from lmtrain.engine.checkpoints.write import Contents
from lmtrain.engine.speed.batch_size import CHECKPOINTING
from lmtrain.engine.speed.fast_paths import FastPaths
from lmtrain.engine.trainer.seeding import SeedingTrainer
from lmtrain.models.dropout import drops
from lmtrain.models.sharding import class_of, gathered, is_sharded, part_here, put_away

_SLOWEST = 10e6  # bytes a second that each process writes, at least: one that takes longer is taken for gone
_ONE_MODEL = ("config", "generation_config")


class ShardingTrainer(SeedingTrainer):
    """A Trainer that takes a model whose weights ``fully_shard`` cut, by the caller's hand or by Accelerate's.

    Accelerate would wrap a model of the caller's in DDP, which knows no ``DTensor``; here it only gives it autocast.
    """

    _savers: Any = None  # the processes, as a group of gloo's that waits for slow disks

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._is_sharded_by_caller:
            _require_same_processes(self.model, self.args.world_size)
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is not None and plugin.activation_checkpointing:
            require_no_dropout(self.model)

    @property
    def fast_paths(self) -> FastPaths:
        """What is used to be fast; see :class:`~lmtrain.engine.trainer.settling.SettlingTrainer`."""
        if self._fast_paths is None:
            self._cut_by_flags()
        return super().fast_paths

    def _cut_by_flags(self) -> None:
        """Have Accelerate cut the model where FSDP2 was asked for by the flags: now, and not when training begins, so
        that what is tried is what will be trained."""
        accelerator = self.accelerator
        plugin = getattr(accelerator.state, "fsdp_plugin", None)
        if not accelerator.is_fsdp2 or plugin is None or is_sharded(self.model):
            return
        if plugin.activation_checkpointing or self.args.torch_compile:  # which Accelerate puts around layers first
            return
        plugin.set_auto_wrap_policy(self.model)
        self.model = self.model_wrapped = fsdp2_prepare_model(accelerator, self.model)
        accelerator._prepare_fsdp2 = partial(self._as_it_is, accelerator._prepare_fsdp2)

    def _as_it_is(self, prepare: Callable[..., tuple[Any, ...]], *made: Any) -> tuple[Any, ...]:
        """In the place of Accelerate's own preparation, of a model that is cut already and the optimizer of its pieces.

        That one would give the optimizer other weights by their addresses, and pieces without a row have all the same.
        """
        if not any(one is self.model for one in made):  # the batches, say
            return prepare(*made)
        self.accelerator._models[:] = [self.model]
        return tuple(one if one is self.model else prepare(one)[0] for one in made)

    @property
    def _saves_shards(self) -> bool:
        """Whether each process writes its part. Models that the library itself shards when it loads them it saves."""
        return is_sharded(self.model) and not getattr(self, "is_distributed_loading_by_transformers", False)

    @property
    def _is_sharded_by_caller(self) -> bool:
        return self._saves_shards and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _wrap_model(self, model: Any, training: bool = True, *args: Any, **kwargs: Any) -> Any:
        if training and self._is_sharded_by_caller:
            put_away(model)
            _require_all_sharded(model)
            return self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
        return super()._wrap_model(model, training, *args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self._is_sharded_by_caller:
            put_away(self.model)  # or it would be made of weights that an evaluation gathered
        return super().create_optimizer(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            if self._saves_shards:
                put_away(self.model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the stock Trainer's; of a sharded model the first process gathers the whole."""
        if not self._is_sharded_by_caller:
            super().save_model(output_dir, _internal_call)
            return
        state = gathered(self.model)
        if self.args.should_save and state is not None:
            self._save(output_dir, state)

    # ---- checkpoints -----------------------------------------------------------------------------

    def _inner(self) -> Any:
        """The model without what compiles or wraps it, whose weights would have other names."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def _writing_shards(
        self, target: Path, step: int, small: dict[str, Any], records: dict[str, Any], about: dict[str, Any]
    ) -> Callable[[], int]:
        """What makes the checkpoint ``target``, for every process to call; ``small`` tensors the first one writes."""
        from lmtrain.engine.checkpoints.sharded import write_sharded
        from lmtrain.engine.checkpoints.sharded_state import optimizer_of, weights_of

        model = self._inner()
        put_away(model)
        parts = {SHARDED_WEIGHTS: weights_of(model)}
        if small:
            parts[SHARDED_OPTIMIZER], records[OPTIMIZER_GROUPS] = optimizer_of(model, self.optimizer)
        if self._savers is None:  # --ddp_timeout is for steps, and writing a large model takes longer than one
            mine = [part_here(tensor) for tensors in parts.values() for tensor in tensors.values()]
            writing = sum(part.numel() * part.element_size() for part in mine) / _SLOWEST
            limit = timedelta(seconds=self.args.ddp_timeout + writing)
            self._savers = torch.distributed.new_group(backend="gloo", timeout=limit)
        contents = Contents(step, self._save_around, small, records, bool(small), about)
        return lambda: write_sharded(target, contents, parts, self._savers)

    def _save_around(self, place: Path) -> None:
        """What lies around the weights: settings and tokenizer."""
        model = self._inner()
        for adapter in getattr(model, "peft_config", {}).values():
            adapter.save_pretrained(str(place))
        if not hasattr(model, "peft_config"):
            model.config.architectures = [class_of(model).__name__]
            for name in _ONE_MODEL:
                if getattr(model, name, None) is not None:
                    getattr(model, name).save_pretrained(str(place))
        self._save_tokenizer(place)

    def _save_tokenizer(self, place: Path) -> None:
        tokenizer = self.processing_class or getattr(self.data_collator, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.save_pretrained(str(place))

    def _reads_shards(self, checkpoint: str | Path) -> bool:
        return has_shards(Path(checkpoint)) or self._saves_shards

    def _load_weights(self, checkpoint: str | Path) -> None:
        from lmtrain.engine.checkpoints.sharded_state import load_weights

        load_weights(self._inner(), Path(checkpoint))

    def _load_optimizer(self, checkpoint: str | Path) -> None:
        from lmtrain.engine.checkpoints.sharded_state import load_optimizer

        load_optimizer(self._inner(), self.optimizer, Path(checkpoint))


def require_no_dropout(model: Any) -> None:
    """Refuse what Accelerate's FSDP does to layers that it computes again: it keeps no random state for them
    (``preserve_rng_state=False`` in ``fsdp2_apply_ac``), so the backward pass would drop other values."""
    if drops(model):
        raise UserError(
            "activation_checkpointing of FSDP draws other dropout when it computes a layer again, so the gradients "
            f"would be wrong; set it to false there and give --{CHECKPOINTING}, or train without dropout",
            flag="--fsdp_config",
        )


def _require_same_processes(model: Any, world: int) -> None:
    """Each process would else train on all the data, and gradients be averaged over too few or too many."""
    from torch.distributed.tensor import DTensor

    sizes = {weight.device_mesh.size() for weight in model.parameters() if isinstance(weight, DTensor)}
    if sizes - {world}:
        raise UserError(
            f"the model is sharded over {max(sizes)} processes, and the arguments know of {world}: under torchrun make "
            "the TrainingArguments first (on a CPU with ddp_backend='gloo') and ask them for their device, which makes "
            "the process group; then shard over all of it"
        )


def _require_all_sharded(model: Any) -> None:
    """A trained weight that is not sharded would go its own way on each process."""
    from torch.distributed.tensor import DTensor

    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    alone = [name for name, weight in trained.items() if not isinstance(weight, DTensor)]
    if alone:
        raise UserError(
            f"{len(alone)} trained weights of a sharded model are not sharded ({alone[0]}), so each process would "
            "train its own: add adapters before the model is sharded, and leave none out"
        )
