"""A folder that is named as a model, looked at before the library opens it."""

from __future__ import annotations

from pathlib import Path

from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json
from lmtrain.models.loading.adapter_folder import is_adapter
from lmtrain.models.loading.hub import TENSORFLOW_REMEDY

_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip


def check_folder(path: Path, flag: str) -> None:
    """Refuse a folder that holds no model, in words for what it does hold."""
    if path.is_file():
        if ".ckpt" in path.name or path.suffix in {".h5", ".index"}:
            raise UserError(f"{path} is a TensorFlow checkpoint; {TENSORFLOW_REMEDY}", flag=flag)
        raise UserError(f"{path} is a file; give the folder that holds it and its config.json", flag=flag)
    names = {entry.name for entry in path.iterdir()}
    weights = names.intersection(_WEIGHTS)
    tensorflow = sorted(n for n in names if ".ckpt" in n or n.startswith("tf_model") or n == "saved_model.pb")
    if tensorflow and not weights:
        raise UserError(f"{path} holds a TensorFlow checkpoint ({tensorflow[0]}); {TENSORFLOW_REMEDY}", flag=flag)
    for index in sorted(name for name in names if name.endswith(".index.json")):
        _check_index(path / index, flag)
    if is_adapter(path):
        return
    if "config.json" not in names:
        inside = [entry for entry in path.iterdir() if (entry / "config.json").is_file()]
        newest = max(inside, key=lambda entry: entry.stat().st_mtime, default=None)
        hint = f"; did you mean {newest}?" if newest else ""
        if not newest and "status.json" in names:
            hint = " yet: its run has saved nothing so far, and the command that began it goes on with it"
        raise UserError(f"{path} has no config.json, so it holds no model{hint}", flag=flag)
    if not weights:
        if "flax_model.msgpack" in names:
            raise UserError(
                f"{path} holds Flax weights only, which today's libraries do not read; convert them to "
                "safetensors with transformers 4.x (from_flax=True)",
                flag=flag,
            )
        raise UserError(
            f"{path} has a config.json but no weights ({' or '.join(_WEIGHTS[:3:2])}); to make a new model "
            "of this shape use --config_name",
            flag=flag,
        )


def _check_index(index: Path, flag: str) -> None:
    """Shards are files beside their index; the library would read whatever file it names."""
    try:
        shards = set(read_json(index)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} cannot be read, so the weights cannot be found: {error}", flag=flag) from error
    wrong = sorted(str(shard) for shard in shards if not isinstance(shard, str) or Path(shard).name != shard)
    if wrong:
        raise UserError(f"{index} names {wrong[0]!r} for weights, which is no file beside it", flag=flag)
