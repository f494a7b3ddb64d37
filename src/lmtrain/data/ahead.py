"""Preparing the text in a thread while the process still imports torch and transformers.

Tokenizing needs neither, and reading a megabyte takes a second, a tenth of the way to the first step. A store is
found again by its content, so nothing has to be agreed on: the run asks for its stores as ever, and finds them.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmtrain.config.options import Resolved
from lmtrain.config.values import user_path
from lmtrain.data.cache import cache_folder
from lmtrain.data.corpus import StoresMade, requests_of
from lmtrain.data.named_text import sources_of
from lmtrain.data.preparing import prepare
from lmtrain.data.tokenizer_files import TokenizerFiles

_MOST_BYTES = 64 << 20  # what is made in the time of the imports; more would keep a mistaken command from ending


class Ahead:
    """Prepares the stores of a command in a thread, where that is no gamble: local files of moderate size, a
    tokenizer that is a file, one process.

    Nothing is said and nothing fails here: whatever is wrong the run finds again, and says.
    """

    def __init__(self, options: Resolved) -> None:
        self._made: StoresMade = {}
        self._thread: threading.Thread | None = None
        if (tokenizer := TokenizerFiles.path_of(options.model)) and _worthwhile(options):
            self._thread = threading.Thread(target=self._prepare, args=(options, tokenizer), name="prepare ahead")
            self._thread.start()

    def _prepare(self, options: Resolved, path: Path) -> None:
        with suppress(Exception):
            tokenizer = TokenizerFiles.load(path, start=True)
            requests, _ = requests_of(options.data, tokenizer, sources_of(options.data), options.splits)
            for request in requests.values():
                said: list[tuple[str, str]] = []
                made = prepare(
                    request, cache_folder(options.data.data_cache_dir),
                    say=lambda topic, text, said=said: said.append((topic, text)),
                )  # fmt: skip
                if not made.was_cached:
                    self._made[made.store.folder] = (made, said)

    def made(self) -> StoresMade:
        """Wait for the thread: what it made, by folder."""
        if self._thread is not None:
            self._thread.join()
        return self._made


def _worthwhile(options: Resolved) -> bool:
    data: Any = options.data
    paths = [*data.train_file, *data.validation_file, *data.test_file]
    if options.command == "sft" or (data.preprocessing_num_workers or 1) > 1:
        return False
    if data.dataset_name or data.overwrite_cache or not paths or int(os.environ.get("WORLD_SIZE") or 1) > 1:
        return False
    files = [user_path(path) for path in paths]
    return all(file.is_file() for file in files) and sum(file.stat().st_size for file in files) <= _MOST_BYTES
