"""What the user typed (paths, globs, folders, ``-``) to sources."""

# Paths are strings here where there may be many: see opening.

from __future__ import annotations

import glob
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lmtrain.config.values import user_path
from lmtrain.core.addresses import is_address, shown
from lmtrain.core.console import counted
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.missing import no_such
from lmtrain.core.types import Source
from lmtrain.data.sources.columns import NoTextColumnError
from lmtrain.data.sources.formats import WHY, source_for, stream_format
from lmtrain.data.sources.opening import File, begun, open_file, spool
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.records import RecordSource
from lmtrain.data.sources.saved import is_saved, saved_splits
from lmtrain.data.sources.segments import size_of
from lmtrain.data.sources.stores import StoreSource, is_store, refuse_stores_in, store_among
from lmtrain.data.sources.text import INTO_FOLDERS, PassedOver, TextSource
from lmtrain.data.sources.walking import files_under, matches, parts

Opener = partial[tuple[File, bytes]]  # opens a file; its first argument names it


def resolve_sources(
    paths: Sequence[str], reading: Reading, *, flag: str = "--train_file", token: str | None = None
) -> list[Source]:
    """The sources that ``paths`` name, in the order given; the files of a folder or glob sorted by path.

    A path is a file, a folder (read recursively; hidden, binary, empty and unreadable files are passed over
    and counted), a glob (``*``, ``?``, ``[...]``, ``**``), a pipe, ``-`` for standard input, or an address
    (``s3://``, ``gs://``, ``hf://``, ``https://``) of a file, a folder or a glob; ``token`` is for the hub's.
    A folder that is a token store is one source, of which only its tokens can be had. A file or
    pipe named by itself has to hold text. The format goes by the name: ``.csv``, ``.tsv``, ``.json``,
    ``.jsonl``, ``.ndjson``, ``.parquet``, ``.arrow``, ``.feather``, each also with ``.gz``, ``.xz`` or
    ``.zst``; everything else is text. A pipe is told by its first bytes
    (:func:`~lmtrain.data.sources.formats.stream_format`).

    Raises:
        UserError: with all problems of all paths.
    """
    problems = Problems()
    found: list[Source] = []
    for path in paths:
        with problems.collect():
            found += _at_address(path, reading, flag, token) if is_address(path) else _sources(path, reading, flag)
    problems.raise_if_any()
    if not found:
        raise UserError("no file is named", flag=flag)
    return found


def _sources(typed: str, reading: Reading, flag: str) -> list[Source]:
    if typed == "-":
        _require_one_reader("standard input", flag)
        return [_from_stream(sys.stdin.buffer, "standard input", reading, flag)]
    path = user_path(typed)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _from_glob(typed, reading, flag)
    except (OSError, ValueError) as error:  # no right to look, a name too long, a zero byte in it
        raise UserError(f"{typed!r} cannot be looked at: {getattr(error, 'strerror', error)}", flag=flag) from error
    if stat.S_ISDIR(mode):
        return _from_folder(path, typed, reading, flag)
    if not stat.S_ISREG(mode):
        _require_one_reader(typed, flag)
        try:
            with path.open("rb") as stream:
                return [_from_stream(stream, typed, reading, flag)]
        except OSError as error:
            raise UserError(f"{typed} could not be read: {error.strerror}", flag=flag) from error
    return [_single(*open_file(str(path), typed, flag), reading)]


def _single(file: File, head: bytes, reading: Reading, form: str | None = None) -> Source:
    """The source of a file that was named by itself."""
    source = source_for(file, head, reading, form)
    if isinstance(source, str):
        raise file.error(f" {WHY[source]}")
    return source


def _at_address(typed: str, reading: Reading, flag: str, token: str | None) -> list[Source]:
    from lmtrain.data.sources.remote import find_files

    over = PassedOver()
    files, by_itself = find_files(typed, flag, token, over)
    if by_itself:
        return [_single(*begun(files[0]), reading)]
    if (name := store_among([file.name for file in files], shown(typed), flag)) is not None:
        return [StoreSource(name, typed, flag, token)]
    return _taken([partial(begun, file) for file in files], shown(typed), over, reading, flag)


RECORDS_WITHOUT_TEXT = "file of records without text"  # in what was passed over
_ENOUGH = 5  # problems told of one folder or glob
_LITTLE = 1 << 20  # bytes of records without text that are passed over beside any text


def _require_one_reader(name: str, flag: str) -> None:
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    if processes > 1:
        raise UserError(
            f"{name} can be read only once, and of {processes} processes each would get a part of it; write it to a "
            "file first",
            flag=flag,
        )


def _from_stream(stream: object, name: str, reading: Reading, flag: str) -> Source:
    file, head = spool(stream, name, flag)  # type: ignore[arg-type]
    return _single(file, head, reading, stream_format(head))


def _from_glob(typed: str, reading: Reading, flag: str) -> list[Source]:
    if not glob.has_magic(typed):
        raise UserError(no_such(typed, user_path(typed)), flag=flag)
    found = matches(str(user_path(typed)))
    files = sorted(filter(os.path.isfile, found), key=parts)
    folders = sum(map(os.path.isdir, found)) if len(found) > len(files) else 0
    if not files:
        matched = f"{counted(folders, 'folder')} and no file; {INTO_FOLDERS}" if folders else "no file"
        raise UserError(f"the pattern {typed!r} matches {matched} (looked from {Path.cwd()})", flag=flag)
    over = PassedOver()
    over.leave_out(folders, typed)
    return _taken(_openers(files, flag), typed, over, reading, flag)


def _openers(files: Sequence[str], flag: str) -> list[Opener]:
    return [partial(open_file, path, path, flag) for path in files]


def _from_folder(folder: Path, typed: str, reading: Reading, flag: str) -> list[Source]:
    if is_saved(folder):
        splits = saved_splits(folder, typed, reading, flag)
        if len(splits) > 1:
            raise UserError(
                f"{typed} is a data set of several splits ({', '.join(splits)}), saved by save_to_disk; "
                f"give it with --dataset_name {typed}",
                flag=flag,
            )
        return list(splits.values())
    if is_store(folder):
        return [StoreSource(typed, str(folder), flag)]
    refuse_stores_in(typed, [str(inner) for inner in sorted(folder.glob("*/")) if is_store(inner)], flag)
    over = PassedOver()
    files = sorted(files_under(str(folder), over), key=parts)
    if not files:
        raise UserError(f"{typed} is a folder without a readable file{_counted(over)}", flag=flag)
    return _taken(_openers(files, flag), typed, over, reading, flag)


def _taken(openers: Sequence[Opener], typed: str, over: PassedOver, reading: Reading, flag: str) -> list[Source]:
    """The sources of those files that hold text; what is passed over is counted by the first of them."""
    problems = Problems()
    found: list[TextSource | RecordSource] = []
    without_text: list[tuple[File, UserError]] = []
    for opened in openers:
        if len(list(problems)) >= _ENOUGH:  # a folder of a thousand wrong files is one mistake, not a thousand
            break
        with problems.collect():
            try:
                file, head = opened()
            except UserError as error:
                if not isinstance(error.__cause__, PermissionError):
                    raise
                over.skipped["unreadable file"] += 1
                over.notes.append(f"{opened.args[0]} was passed over: no right to read it")
                continue
            try:
                source = source_for(file, head, reading)
            except UserError as error:
                if not _may_lack_text(file, head, reading, error):
                    raise
                without_text.append((file, error.with_traceback(None)))  # which would keep what the parser holds
                error.__cause__ = error.__context__ = None
                continue
            if isinstance(source, str):
                over.skipped[source] += 1
            else:
                if not found:
                    source.passed_over = over
                found.append(source)
    with problems.collect():
        _pass_over(without_text, found, typed, over, reading)
    problems.raise_if_any()
    if not found:
        raise UserError(f"{typed} holds no file with text{_counted(over)}", flag=flag)
    return list(found)


def _may_lack_text(file: File, head: bytes, reading: Reading, error: UserError) -> bool:
    """Whether a file of records may be one that was never meant, as a package.json beside source code: without the
    column, or JSON that cannot be read as records and does not show that name where it begins."""
    if type(reading) is not Reading:  # of pairs: plain text is nothing to train on there
        return False
    if isinstance(error, NoTextColumnError):
        return True
    return file.suffix == ".json" and f'"{reading.text_column or "text"}"'.encode() not in head


def _pass_over(
    files: Sequence[tuple[File, UserError]],
    found: Sequence[TextSource | RecordSource],
    typed: str,
    over: PassedOver,
    reading: Reading,
) -> None:
    """Count the ``files`` whose records have no text, such as the package.json beside source code.

    Raises what is wrong with them where they may be what was meant: no file of plain text is there, or they are more
    than that, or none has the column that was named.
    """
    if not files:
        return
    plain = [source for source in found if isinstance(source, TextSource)]
    size = sum(file.size for file, _ in files)
    problems = Problems()
    is_named_in_vain = bool(reading.text_column) and len(plain) == len(found)
    if not plain or is_named_in_vain or size > max(_LITTLE, sum(map(size_of, found))):
        for _, error in files[:_ENOUGH]:
            with problems.collect():
                raise error
        kinds = Counter(source.file.suffix for source in plain if source.file.suffix)
        if kinds and user_path(typed).is_dir():
            named = " ".join(f"'{typed.rstrip('/')}/**/*{suffix}'" for suffix, _ in kinds.most_common(_ENOUGH))
            problems.add(f"to read the files of text alone, name them: {named}", flag=files[0][0].flag)
        problems.raise_if_any()
    over.skipped[RECORDS_WITHOUT_TEXT] += len(files)
    shown = ", ".join(file.name for file, _ in files[:3]) + (", …" if len(files) > 3 else "")
    column = reading.text_column or "text"
    over.notes.append(
        f"passed over {counted(len(files), 'file')} without records that have a column {column!r}: {shown} "
        "(--text_column names another one)"
    )


def _counted(over: PassedOver) -> str:
    said = ", ".join(f"{count} × {reason}" for reason, count in sorted(over.skipped.items()))
    return f" (passed over: {said})" if said else ""
