"""What the end of a run does, tried on a twin of the model: save, load, compare, and use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lmtrain.config.options import ModelOptions
from lmtrain.core.errors import OwnResultWrong, Problems, UserError, first_line, one_line
from lmtrain.generate import Settings, complete, fill_mask
from lmtrain.models import Purpose, max_positions, save_model
from lmtrain.models.exporting.verified_export import export_verified
from lmtrain.models.loading.vocabulary import rows_of
from lmtrain.models.quiet import quiet_libraries
from lmtrain.rehearsal.twin import Twin

_NEW_TOKENS = 3
_OF_ANOTHER: dict[str, Any] = {"model_revision": "main", "token": None, "cache_dir": None}
_ANYWAY = "--skip_check trains it all the same"


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Raise :class:`UserError` when the tokenizer has more ids than the model's embedding has rows.

    That each id of a batch has one is looked at where batches are made.
    """
    rows, ids = rows_of(model), len(tokenizer)
    if ids > rows:
        raise UserError(
            f"the tokenizer has {ids:,} ids and the model {rows:,} embedding rows; choose the model's own",
            flag="--tokenizer_name",
        )


def check_settings(model: Any, flag: str) -> None:
    """The model's generation settings. Raises :class:`UserError` with all that is wrong with them."""
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    problems, rows = Problems(), rows_of(model)
    try:
        generation.validate(strict=True)
    except ValueError as error:
        problems.add(
            f"its generation settings are not valid ({one_line(error)}), and saving would refuse them; "
            "mend its generation_config.json",
            flag=flag,
        )
    for role in ("bos", "eos", "pad"):
        ids = getattr(generation, f"{role}_token_id", None)
        for number in ids if isinstance(ids, list | tuple) else [ids]:
            if isinstance(number, int) and not 0 <= number < rows:
                problems.add(
                    f"its generation settings name {role}_token_id {number:,}, and its vocabulary has the ids 0 to "
                    f"{rows - 1:,}; mend its generation_config.json",
                    flag=flag,
                )
    problems.raise_if_any()


def check_saving(
    twin: Twin, tokenizer: Any | None, scratch: Path, options: ModelOptions, purpose: Purpose, flag: str, *, merge: bool
) -> None:
    """Export the twin as the run will export its model, which loads and compares it. ``tokenizer`` None leaves it out.

    Raises :class:`UserError`, whose flag is ``flag`` where it is about the model.
    """
    try:
        with quiet_libraries():
            if twin.base is not None:  # where the adapter says its base is
                save_model(twin.base, None, scratch / "base")
                twin.model.peft_config["default"].base_model_name_or_path = str(scratch / "base")
                options = replace(options, **_OF_ANOTHER, model_name_or_path=str(scratch / "base"))
            export_verified(twin.model, tokenizer, scratch / "model", purpose, options, merge=merge)
    except OwnResultWrong as error:
        raise UserError(f"on a small scale {error}; {_ANYWAY}", flag=flag) from error
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(
            f"writing a small model there fails ({why}); make room, or give back the right to write",
            flag="--output_dir",
        ) from error
    except UserError:
        raise
    except Exception as error:  # classes fail in many ways, and each is a reason not to begin
        raise UserError(f"a small model of its kind cannot be saved: {_said(error)}; {_ANYWAY}", flag=flag) from error


def check_use(model: Any, tokenizer: Any, prompt: str, purpose: Purpose, flag: str) -> None:
    """Complete ``prompt`` by a few tokens, or guess a hidden one. Raises :class:`UserError`."""
    context = max_positions(model.config)
    try:
        with quiet_libraries():
            if purpose == "clm":
                complete(model, tokenizer, [prompt], Settings(max_new_tokens=_NEW_TOKENS, do_sample=False), context)
            else:
                fill_mask(model, tokenizer, [f"{tokenizer.mask_token} {prompt}"], top=1, context=context)
    except UserError:
        raise
    except Exception as error:
        what = "generate" if purpose == "clm" else "fill a mask"
        raise UserError(f"a small model of its kind cannot {what}: {_said(error)}; {_ANYWAY}", flag=flag) from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
