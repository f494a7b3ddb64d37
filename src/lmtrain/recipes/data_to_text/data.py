"""From a corpus' files to records and token ids, under names that say what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmtrain.core.console import Say, counted
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.files import read_json, sha256_file, write_json
from lmtrain.data.nlg.encoding import encode_file
from lmtrain.data.nlg.formats import convert
from lmtrain.data.nlg.records import Record, read_records, write_records
from lmtrain.data.tokenizer_files import TokenizerFiles


@dataclass(frozen=True, slots=True)
class Prepared:
    """Files of one corpus: records and ids of each split (``train``, ``valid``, ``test``)."""

    records: dict[str, Path]
    ids: dict[str, Path]


def prepare(form: str, files: dict[str, str], tokenizer: TokenizerFiles, folder: Path, say: Say) -> Prepared:
    """Convert and encode the files, each unless that was done before with the same file and tokenizer.

    ``files`` are of the corpus' own format, or records already. Raises :class:`UserError` with all problems.
    """
    records: dict[str, Path] = {}
    problems = Problems()
    for split, source in files.items():
        with problems.collect():
            records[split] = _converted(form, split, source, folder, say)
    problems.raise_if_any()
    return Prepared(records, {split: _encoded(path, tokenizer, folder) for split, path in records.items()})


def _converted(form: str, split: str, source: str, folder: Path, say: Say) -> Path:
    target = folder / f"{split}.jsonl"
    key = {"source": _hash(source, split), "format": form}
    if not _is_made(target, key):
        try:
            if _is_records(source):
                found = read_records(source)
                count, contexts = write_records(target, found), len({record.context for record in found})
            else:
                count, contexts = convert(form, source, target)
        except UserError as error:
            raise UserError(error.problems[0].text, flag=f"--{split}") from error
        _note(target, key)
        say("data", f"{split}: {counted(count, 'text')} for {counted(contexts, 'input')}")
    return target


def _encoded(records: Path, tokenizer: TokenizerFiles, folder: Path) -> Path:
    target = folder / f"{records.stem}.ids.jsonl"
    key = {"records": sha256_file(records), "tokenizer": tokenizer.fingerprint}
    if not _is_made(target, key):
        encode_file(records, target, tokenizer, add_bos=True, add_eos=True)
        _note(target, key)
    return target


def first_of_each(records: list[Record], most: int | None = None) -> list[int]:
    """The number of the first record of each distinct input, in the order of the file."""
    first: dict[str, int] = {}
    for number, record in enumerate(records):
        first.setdefault(record.context, number)
    return list(first.values())[:most]


def _is_records(source: str) -> bool:
    """By its first line, which in no corpus' own format is a JSON object with a context."""
    with Path(source).expanduser().open("rb") as stream:
        return stream.readline(1 << 16).lstrip().startswith(b'{"context"')


def _hash(source: str, split: str) -> str:
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"no such file: {source}", flag=f"--{split}")
    return sha256_file(path)


def _is_made(target: Path, key: dict[str, str]) -> bool:
    made = _key_of(target)
    return target.is_file() and made.is_file() and read_json(made) == key


def _note(target: Path, key: dict[str, str]) -> None:
    write_json(_key_of(target), key)


def _key_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.made-of.json")
