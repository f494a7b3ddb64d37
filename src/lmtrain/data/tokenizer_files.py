"""What preparation has to know about a tokenizer, read from its files without transformers.

``tokenizer.json`` holds the whole pipeline; ``tokenizer_config.json``, ``special_tokens_map.json`` and
``added_tokens.json`` name the special tokens. Training loads the transformers tokenizer anyway, and that one
is the truth: :meth:`TokenizerFiles.from_transformers` describes it in the same words, with the same
fingerprint for an ordinary folder, so that both find the same store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_json
from lmtrain.data.fast_engine import Loading, load_fastokens
from lmtrain.data.tokenizer_settings import FLAG, NAMED, add_missing, named_tokens, read_json, read_text

END_OF_TEXT = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>")


@dataclass(frozen=True, eq=False)
class TokenizerFiles:
    """A tokenizer as preparation sees it.

    ``n_ids`` is the highest id + 1. ``prefix_ids`` and ``suffix_ids`` are what its post-processor puts around
    one document. ``fingerprint`` depends on everything that decides content ids (normalizer, pre-tokenizer,
    model, added tokens) and on nothing else: neither saved truncation and padding, which are ignored, nor
    the post-processor, whose tokens are the layout's.
    """

    name: str
    fingerprint: str
    n_ids: int
    special_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    sep_id: int | None = None
    pad_id: int | None = None
    cls_id: int | None = None
    mask_id: int | None = None
    added_tokens: tuple[str, ...] = ()
    backend: Any = field(default=None, repr=False)  # tokenizers.Tokenizer, or None for a Python-only tokenizer
    python_tokenizer: Any = field(default=None, repr=False)  # a transformers tokenizer without a Rust backend
    fast: Loading[Any] | None = field(default=None, repr=False)  # the fastokens engine

    @staticmethod
    def path_of(options: Any) -> Path | None:
        """Where the tokenizer that ``options`` (a ``config.options.ModelOptions``) name lies, when
        :meth:`load` can read it; else None: a hub name, or a tokenizer in Python."""
        name = options.tokenizer_name or options.model_name_or_path
        if not name or not options.use_fast_tokenizer:
            return None
        path = user_path(name)
        return path if (path / "tokenizer.json" if path.is_dir() else path).is_file() else None

    @classmethod
    def load(cls, path: str | Path, *, start: bool = False) -> TokenizerFiles:
        """From a folder with ``tokenizer.json``, or from that file itself. Raises :class:`UserError`.

        ``start``: load the fast engine now, beside the rest; right when tokenizing is what comes next.
        """
        path = user_path(str(path))
        folder, file = (path, path / "tokenizer.json") if path.is_dir() else (path.parent, path)
        text = read_text(file)
        fast = Loading(lambda: load_fastokens(text))  # half a second for 50,000 tokens
        if start:
            fast.start()
        from tokenizers import Tokenizer

        try:
            backend = Tokenizer.from_str(text)
        except Exception as error:  # the binding raises plain Exception
            raise UserError(f"{file} is not a tokenizer.json that can be read: {error}", flag=FLAG) from error
        backend.no_truncation()
        backend.no_padding()
        is_folder = path.is_dir()
        config = read_json(folder / "tokenizer_config.json") if is_folder else {}
        named = named_tokens(config, read_json(folder / "special_tokens_map.json") if is_folder else {})
        extra = read_json(folder / "added_tokens.json") if is_folder else {}
        try:
            is_changed = add_missing(backend, config, named, extra)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder / 'tokenizer_config.json'} or added_tokens.json beside it does not hold what transformers "
                f"writes there ({type(error).__name__}: {error})",
                flag=FLAG,
            ) from error
        if is_changed:
            changed = backend.to_str()
            fast = Loading(lambda: load_fastokens(changed))
        ids = {name: backend.token_to_id(token) for name, token in named.items()}
        around = None
        if "add_bos_token" in config or "add_eos_token" in config:  # transformers then rebuilds the post-processor
            around = (
                [bos] if config.get("add_bos_token") and (bos := ids.get("bos")) is not None else [],
                [eos] if config.get("add_eos_token") and (eos := ids.get("eos")) is not None else [],
            )
        return cls._describe(str(path), backend, ids, around, fast)

    @classmethod
    def from_transformers(cls, tokenizer: Any) -> TokenizerFiles:
        """From a loaded transformers tokenizer, fast or Python-only."""
        ids = {name: getattr(tokenizer, f"{name}_token_id", None) for name in NAMED}
        name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not getattr(tokenizer, "is_fast", False):
            return cls._describe_python(name, tokenizer, ids)
        from tokenizers import Tokenizer

        own = Tokenizer.from_str(backend.to_str())  # a copy: the caller's truncation and padding stay as they are
        own.no_truncation()
        own.no_padding()
        text = own.to_str()
        return cls._describe(
            name,
            own,
            ids,
            None,
            Loading(lambda: load_fastokens(text)),
            more_special=tokenizer.all_special_ids,
        )

    @classmethod
    def _describe(
        cls,
        name: str,
        backend: Any,
        ids: Mapping[str, int | None],
        around: tuple[list[int], list[int]] | None,
        fast: Loading[Any],
        more_special: Iterable[int] = (),
    ) -> TokenizerFiles:
        added = backend.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special} | {i for i in ids.values() if i is not None}
        special |= set(more_special)
        ids = dict(ids)
        if ids.get("eos") is None:
            ids["eos"] = _find_end_of_text(backend, special)
        prefix, suffix = around or _around(backend)
        return cls(
            name=name,
            fingerprint=fingerprint(backend.to_str()),
            n_ids=_count_ids(backend),
            special_ids=tuple(sorted(special)),
            prefix_ids=tuple(prefix),
            suffix_ids=tuple(suffix),
            added_tokens=tuple(token.content for token in added.values()),
            backend=backend,
            fast=fast,
            **_named_ids(ids),
        )

    @classmethod
    def _describe_python(cls, name: str, tokenizer: Any, ids: Mapping[str, int | None]) -> TokenizerFiles:
        vocabulary = tokenizer.get_vocab()
        content = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("a"))
        whole = list(tokenizer.build_inputs_with_special_tokens(content))
        start = _position(content, whole)
        settings = {k: v for k, v in tokenizer.init_kwargs.items() if isinstance(v, str | int | float | bool)}
        settings.pop("name_or_path", None)
        settings = {k: v for k, v in settings.items() if not k.endswith("_file")}  # paths; the vocabulary is below
        return cls(
            name=name,
            fingerprint=sha256_json([type(tokenizer).__qualname__, vocabulary, settings]),
            n_ids=max(vocabulary.values(), default=-1) + 1,
            special_ids=tuple(sorted(set(tokenizer.all_special_ids))),
            prefix_ids=tuple(whole[:start]),
            suffix_ids=tuple(whole[start + len(content) :]),
            added_tokens=tuple(tokenizer.get_added_vocab()),
            python_tokenizer=tokenizer,
            **_named_ids(ids),
        )

    def around_document(self, objective: str, *, append_eos: bool = True) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that a layout puts before and after each document.

        ``mlm``: the tokenizer's own special tokens. ``clm``: the same and, with ``append_eos``, the end-of-
        text token unless the tokenizer puts it there already. ``clm`` without it is what run_clm does.
        """
        if objective == "mlm" or not append_eos:
            return self.prefix_ids, self.suffix_ids
        if self.eos_id is None:
            raise UserError(
                f"{self.name} names no end-of-text token (eos_token), which separates documents in causal "
                "training; name one in its tokenizer_config.json, or use --append_eos false",
                flag=FLAG,
            )
        if self.suffix_ids[-1:] == (self.eos_id,):
            return self.prefix_ids, self.suffix_ids
        return self.prefix_ids, (*self.suffix_ids, self.eos_id)


def _named_ids(ids: Mapping[str, int | None]) -> dict[str, Any]:
    return {f"{name}_id": ids.get(name) for name in NAMED}


def fingerprint(json_text: str) -> str:
    """SHA-256 of the parts of a ``tokenizer.json``, as ``tokenizers`` writes it, that decide content ids."""
    head, mark, model = json_text.partition(',"model":')  # the model is megabytes: hashed as it stands
    if not mark:
        raise ValueError("not a serialized tokenizer")
    parts = json.loads(head + "}")
    settings, mark, vocabulary = model.partition(',"vocab":')
    if mark:  # a class of transformers may write "" or false where the file had nothing
        given = json.loads(settings + "}")
        settings = json.dumps({k: v for k, v in given.items() if v is not None and v is not False and v != ""})
    kept = json.dumps([parts[k] for k in ("added_tokens", "normalizer", "pre_tokenizer")], sort_keys=True)
    return hashlib.sha256((kept + settings + vocabulary).encode("utf-8")).hexdigest()


def _find_end_of_text(backend: Any, special: set[int]) -> int | None:
    for token in END_OF_TEXT:
        number = backend.token_to_id(token)
        if number is not None and number in special:
            return int(number)
    return None


def _around(backend: Any) -> tuple[list[int], list[int]]:
    """Special ids that the post-processor puts before and after one text."""
    for text in ("a", "A", "0", ".", "the"):  # the first that the normalizer does not swallow
        content = backend.encode(text, add_special_tokens=False).ids
        if content:
            whole = backend.encode(text, add_special_tokens=True).ids
            start = _position(content, whole)
            return whole[:start], whole[start + len(content) :]
    return [], []


def _position(part: list[int], whole: list[int]) -> int:
    for start in range(len(whole) - len(part) + 1):
        if whole[start : start + len(part)] == part:
            return start
    raise UserError(
        f"the tokenizer changes a text's own tokens when it adds special tokens ({part} became {whole})",
        flag=FLAG,
    )


def _count_ids(backend: Any) -> int:
    """The highest id + 1. Ids may have holes, so the number of tokens does not do."""
    count = backend.get_vocab_size(with_added_tokens=True)
    if all(backend.id_to_token(i) is not None for i in range(count)):
        return int(count)  # as many tokens as ids 0 … count - 1, none missing: there are no others
    return int(max(backend.get_vocab(with_added_tokens=True).values(), default=-1)) + 1
