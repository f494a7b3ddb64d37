"""From a corpus' files to records and token ids, under names that say what they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lmtrain.config.values import user_path
from lmtrain.core.console import Say, counted
from lmtrain.core.errors import Problems, UserError, about
from lmtrain.core.files import read_json, sha256_file, write_json
from lmtrain.data.nlg.encoding import encode_file
from lmtrain.data.nlg.formats import FORMATS, convert
from lmtrain.data.nlg.records import Record, opened, read_records, write_records
from lmtrain.data.nlg.text import require_references
from lmtrain.data.tokenizer_files import TokenizerFiles

_LONGEST: Final = 1 << 20  # bytes of a record's line; a corpus in JSON may be one line of any length


@dataclass(frozen=True, slots=True)
class Prepared:
    """Files of one corpus: records and ids of each split (``train``, ``valid``, ``test``)."""

    records: dict[str, Path]
    ids: dict[str, Path]


def look_through(form: str, files: Mapping[str, str], folder: Path, problems: Problems) -> None:
    """Add all that is wrong with the texts of ``files``, by split, that :func:`prepare` is to read."""
    for split, source in files.items():
        with problems.collect(), _about(split, folder):
            if not is_made(folder / f"{split}.jsonl", _made_of(form, source)):
                records = records_of(form, source)
                if split == "test":
                    require_references(records)


def prepare(
    form: str, files: dict[str, str], tokenizer: TokenizerFiles, folder: Path, say: Say, *, begun: bool = False
) -> Prepared:
    """Convert and encode the files, each unless that was done before with the same file and tokenizer.

    ``files`` are of the corpus' own format, or records already. ``begun``: a training began with what lies in
    ``folder``, so its files are not made of other texts. Raises :class:`UserError` with all problems.
    """
    records: dict[str, Path] = {}
    problems = Problems()
    for split, source in files.items():
        with problems.collect(), _about(split, folder):
            records[split] = _converted(form, split, source, folder, say, begun)
    problems.raise_if_any()
    ids = {split: _encoded(path, folder / f"{split}.ids.jsonl", tokenizer) for split, path in records.items()}
    return Prepared(records, ids)


def as_ids(
    files: dict[str, str], tokenizer: Callable[[], TokenizerFiles], folder: Path, say: Say, *, begun: bool = False
) -> dict[str, Path]:
    """The files as token ids: those of texts are encoded into ``folder`` as :func:`prepare` does it, with the
    end-of-text token between context and completion, where decoding begins; ``begun`` as there. Raises
    :class:`UserError`."""
    found: dict[str, Path] = {}
    problems = Problems()
    for split, source in files.items():
        with problems.collect(), _about(split, folder):
            found[split] = user_path(source)
            form = form_of(source)
            if form == "texts":
                found[split] = _encoded(found[split], folder / f"{split}.ids.jsonl", tokenizer(), begun)
                say("data", f"{split}: texts, encoded as lmtrain nlg encode --add_bos --add_eos does it")
            elif form is None:
                raise UserError(
                    f'{source}: its first line is neither a record of lmtrain nlg convert, {{"context": "text", '
                    '"completion": "text"}, nor of lmtrain nlg encode, with token ids for both; lmtrain sft trains on '
                    "pairs in other forms"
                )
    problems.raise_if_any()
    return found


def form_of(source: str) -> Literal["texts", "ids"] | None:
    """What the records of a file hold, by its first line; None: it has no records. Raises :class:`UserError`."""
    with opened(source).open() as stream:
        line = b""
        while not line.strip() and (line := stream.readline(_LONGEST)):
            pass
    try:
        first = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict) or "context" not in first:
        return None
    return "ids" if isinstance(first["context"], list) else "texts"


def records_of(form: str, source: str) -> list[Record]:
    """The records of a file: of the corpus' own format, or written by ``lmtrain nlg convert`` already."""
    return list(FORMATS[form](source)) if form_of(source) is None else read_records(source)


def _converted(form: str, split: str, source: str, folder: Path, say: Say, begun: bool) -> Path:
    target, key = folder / f"{split}.jsonl", _made_of(form, source)
    if not is_made(target, key):
        if begun and split != "test":  # another test set is decoded and scored beside the first
            _require_unmade(target)
        with noted(target, key):
            if form_of(source) is None:
                count, contexts = convert(form, source, target)
            else:
                found = read_records(source)
                count, contexts = write_records(target, found), len({record.context for record in found})
        say("data", f"{split}: {counted(count, 'text')} for {counted(contexts, 'input')}")
    return target


def _made_of(form: str, source: str) -> dict[str, str]:
    return {"source": opened(source).content_hash(), "format": form}


def _require_unmade(target: Path) -> None:
    """Refuse to make ``target`` of something else, while a model that was trained on it lies beside it."""
    if target.is_file() and _key_of(target).is_file():
        raise UserError(
            f"{target} was made of another text or with another tokenizer, and a training has begun with it; choose "
            "another --output_dir, or begin anew with --overwrite_output_dir"
        )


def _encoded(records: Path, target: Path, tokenizer: TokenizerFiles, begun: bool = False) -> Path:
    key = {"records": sha256_file(records), "tokenizer": tokenizer.fingerprint}
    if not is_made(target, key):
        if begun:
            _require_unmade(target)
        with noted(target, key):
            encode_file(records, target, tokenizer, add_bos=True, add_eos=True)
    return target


def first_of_each(records: list[Record], most: int | None = None) -> list[int]:
    """The number of the first record of each distinct input, in the order of the file."""
    first: dict[str, int] = {}
    for number, record in enumerate(records):
        first.setdefault(record.context, number)
    return list(first.values())[:most]


@contextmanager
def _about(split: str, folder: Path) -> Iterator[None]:
    """Let errors name the flag of the split, or that of ``folder`` where it cannot be written."""
    try:
        with about(f"--{split}", where_none=True):
            yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}", flag="--output_dir") from error


def is_made(target: Path, key: dict[str, str]) -> bool:
    """Whether ``target`` is there and was noted to be made of what ``key`` says."""
    try:
        return target.is_file() and bool(read_json(_key_of(target)) == key)
    except (OSError, ValueError):
        return False


@contextmanager
def noted(target: Path, key: dict[str, str]) -> Iterator[None]:
    """While ``target`` is written it is made of nothing, and then noted to be made of what ``key`` says."""
    _key_of(target).unlink(missing_ok=True)
    yield
    write_json(_key_of(target), key)


def _key_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.made-of.json")
