"""Which files of a folder are a model that loads: complete, and as they were when they were compared.

A run's folder also holds its records, checkpoints and logs; they are no part of the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json, sha256_file

RECORD = "export.json"  # of a run: what was exported, by name, size and hash
CARD = "README.md"
CONFIGS = ("config.json", "adapter_config.json")  # what makes a folder a model, or an adapter
_SINGLE = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHTS = ("model*.safetensors", "adapter_model.*", "pytorch_model*.bin", *_INDEXES)
_BESIDE = (
    *CONFIGS, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.*",
    "additional_chat_templates/*", "*.py", "LICENSE*",
)  # fmt: skip


def exported_files(folder: Path, flag: str | None = None) -> list[Path]:
    """The files of the model that lies in ``folder``, in the order of their names.

    Raises :class:`UserError` where there is none, where it is not complete, or where a file is not what a run wrote
    there.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}", flag=flag)
    if not any((folder / name).is_file() for name in CONFIGS):
        raise UserError(
            f"{folder} holds no exported model ({' or '.join(CONFIGS)} is missing); a run leaves one when its "
            "training has ended: the same command goes on with it",
            flag=flag,
        )
    weights = _weights(folder, flag)
    for path in weights:
        if why := _damage(path):
            raise UserError(f"{path} is not whole ({why}); export the model again", flag=flag)
    recorded = _recorded(folder)
    if recorded:
        _require_unchanged(folder, recorded, flag)
        found = {folder / name for name in recorded}
    else:
        found = {path for pattern in _BESIDE for path in folder.glob(pattern) if path.is_file()} | set(weights)
    card = folder / CARD
    return sorted(found | ({card} if card.is_file() else set()))


def _weights(folder: Path, flag: str | None) -> list[Path]:
    for name in _INDEXES:
        if (folder / name).is_file():
            parts = sorted({folder / part for part in read_json(folder / name)["weight_map"].values()})
            missing = [path.name for path in parts if not path.is_file()]
            if missing:
                raise UserError(
                    f"{folder} lacks {missing[0]}, a part of the weights; export the model again", flag=flag
                )
            return [*parts, folder / name]
    found = [folder / name for name in _SINGLE if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder} has a configuration and no weights; export the model again", flag=flag)
    return found[:1]


def _damage(path: Path) -> str | None:
    """What is wrong with a safetensors file, from its header and its length alone."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            return str(error)
    return None


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        files = read_json(folder / RECORD).get("files")
    except (OSError, ValueError, AttributeError):
        return {}
    return files if isinstance(files, dict) else {}


def _require_unchanged(folder: Path, recorded: dict[str, Any], flag: str | None) -> None:
    for name, about in recorded.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is gone since the run exported it; bring it back, or train again", flag=flag)
        if path.stat().st_size != about.get("bytes") or sha256_file(path) != about.get("sha256"):
            raise UserError(
                f"{path} is not what the run exported and compared; if that is meant, delete {folder / RECORD}",
                flag=flag,
            )
