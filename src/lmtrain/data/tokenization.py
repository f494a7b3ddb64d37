"""Text to ids: the engines, and the proof that the fast one gives the ids of the plain one.

The plain engine is the tokenizer's own: the ``tokenizers`` library, or the Python code of a tokenizer that
has no other. ``fastokens`` is some thirty times faster; it is used only after it gave the same ids for a list
of odd texts, for the corpus's first documents and for random samples of it, and every batch is sampled again
while preparation runs (:meth:`Proof.check`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from lmtrain.core.console import note
from lmtrain.data.tokenizer_files import TokenizerFiles

Encoded = tuple[np.ndarray, np.ndarray]


class Encoder(Protocol):
    """Turns texts into content ids, without special tokens."""

    @property
    def name(self) -> str:
        """What to call it in messages and in the manifest."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """``(ids, offsets)``: all ids in a row, uint32, and int64 offsets of shape (len(texts) + 1,)."""


class FastokensEncoder:
    """``fastokens``: a batch at once to flat ids, on all cores, without the interpreter lock."""

    name = "fastokens"
    used: ClassVar[bool] = False  # by this process; its threads are running then, and it is not to be forked

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def encode(self, texts: Sequence[str]) -> Encoded:
        FastokensEncoder.used = True
        ids, offsets = self._engine.encode_batch_flat(texts if isinstance(texts, list) else list(texts))
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)


class TokenizersEncoder:
    """The ``tokenizers`` library."""

    name = "tokenizers"

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def encode(self, texts: Sequence[str]) -> Encoded:
        return _flatten([e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)])


class PythonEncoder:
    """A transformers tokenizer without a Rust backend."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.name = type(tokenizer).__name__

    def encode(self, texts: Sequence[str]) -> Encoded:
        # Not the tokenizer's __call__: that one warns that a document is longer than the model's positions.
        convert, tokenize = self._tokenizer.convert_tokens_to_ids, self._tokenizer.tokenize
        return _flatten([convert(tokenize(text)) for text in texts])


def _flatten(rows: list[list[int]]) -> Encoded:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    ids = np.fromiter((i for row in rows for i in row), np.uint32, int(offsets[-1]))
    return ids, offsets


def reference_encoder(tokenizer: TokenizerFiles) -> Encoder:
    """The plain engine: what every other one is compared with."""
    if tokenizer.backend is not None:
        return TokenizersEncoder(tokenizer.backend)
    return PythonEncoder(tokenizer.python_tokenizer)


class DiffersError(Exception):
    """A fast engine gave other ids than the plain one."""

    def __init__(self, text: str) -> None:
        shown = text if len(text) <= 40 else text[:40] + "…"
        super().__init__(f"they differ on {shown!r}")

    @classmethod
    def saying(cls, message: str) -> DiffersError:
        """As it was said in another process."""
        error = cls("")
        error.args = (message,)
        return error


class Proof:
    """Compares a fast engine with the plain one and counts what was compared."""

    def __init__(self, fast: Encoder, plain: Encoder) -> None:
        self.fast = fast
        self.plain = plain
        self.bytes_compared = 0

    def check(self, texts: Sequence[str], expected: Encoded | None = None) -> None:
        """Raise :class:`DiffersError` at the first text with other ids. ``expected``: the plain engine's, if
        known."""
        ids, offsets = self.fast.encode(texts)
        plain_ids, plain_offsets = expected or self.plain.encode(texts)
        self.bytes_compared += sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if np.array_equal(offsets, plain_offsets) and np.array_equal(ids, plain_ids):
            return
        for i, text in enumerate(texts):
            ours = ids[offsets[i] : offsets[i + 1]]
            if not np.array_equal(ours, plain_ids[plain_offsets[i] : plain_offsets[i + 1]]):
                raise DiffersError(text)

    @property
    def line(self) -> str:
        size = self.bytes_compared
        shown = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
        return f"{self.fast.name} proven equal to {self.plain.name} on {shown} of this text and on odd Unicode"

    @property
    def claim(self) -> str:
        """The line without the amount."""
        return f"{self.fast.name} proven equal to {self.plain.name} on samples of this text and on odd Unicode"


def choose_encoder(tokenizer: TokenizerFiles, sample: Sequence[str]) -> tuple[Encoder, Proof | None, str]:
    """The fastest engine that proves equal on odd texts and ``sample``.

    Returns the encoder, its proof (None when the plain engine is used) and a line that says why.
    """
    plain = reference_encoder(tokenizer)
    if tokenizer.fast is None:
        return plain, None, f"this tokenizer is Python only: {plain.name} tokenizes, slowly"
    texts = [*odd_texts(tokenizer.added_tokens), *sample]
    expected = plain.encode(texts)  # while fastokens still loads
    try:
        proof = Proof(FastokensEncoder(tokenizer.fast.result()), plain)
        proof.check(texts, expected)
        return proof.fast, proof, proof.line
    except ImportError:
        why = "fastokens is not installed (pip install 'lmtrain[fast]'): tokenizers tokenizes, slower"
    except DiffersError as error:
        why = f"fastokens not used: {error}; tokenizers tokenizes, slower"
    except Exception as error:  # whatever it says about a pipeline that it does not know
        note(f"fastokens: {_short(error)}")
        why = "the faster fastokens does not know this kind of tokenizer: tokenizers tokenizes"
    return plain, None, why


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__


_ODD = (
    "", " ", "  ", "\n", "\r\n", "\t", "\x00", "\x7f", "\u00a0", "\u2028", "\u3000", "\ufeff", "\ufffd",
    "\x85", " a", "a ", " a ", "a  b", "a   b", "a\n", "\na", "a\n\nb", "a \n b", "a\r\nb\r\n", "a\tb",
    " \n \n ", "a" * 300, " " * 70, " " * 70 + "x", "\n" * 40, "\t" * 9 + "x", "-" * 100,
    "=" * 33 + "\n", "!" * 17 + "?!", "0" * 50, "don't we'll I'M they'Re 'tis rock'n'roll it’s",
    "x=1;y==2->z::w/*c*/ #!$%&()[]{}<>|\\^~`@", "3.14159e-10 1,000,000",
    "1234567890 12 123 1234 ١٢٣ ४५६ ²³½ Ⅷ", "naïve café — “quoted” … ‘x’",
    "cafe\u0301 e\u0301\u0302 a\u030a \u1e9b\u0323", "Ǆ ǆ ﬁ ﬀ Å Å Ω ℌ ſ ß ẞ İ ı ΐ",
    "한국어 각각 \u1112\u1161\u11ab", "日本語テキスト ﾊﾝｶｸ 全角ＡＢＣ", "中文没有空格的句子。",
    "العربية ‏مُشَكَّل", "עִבְרִית", "हिन्दी क्षत्रिय", "ไทยไม่มีช่องว่าง",
    "Ελληνικά Русский Українська", "👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈𐌰 \U0010fffd \ue000",
    "zero\u200bwidth\u200c\u200d\u2060\u00adsoft", "a\u0300\u0301\u0302\u0303\u0304",
    "ＦＵＬＬ　ＷＩＤＴＨ", "\x1b[31mred\x1b[0m \x08\x0b\x0c",
    "CamelCaseWord snake_case_word kebab-case-word ALLCAPS",
    "http://example.org/a?b=c&d=%20#e user@example.org",
    "def f(x):\n\treturn  x\n\n\nclass A:\n    pass\n", "##a ##", "Ġa Ċ ▁a ▁",
    "<s> </s> <unk> [UNK] [CLS] [MASK] <|endoftext|> <pad> <0x0A> <mask>",
)  # fmt: skip


def odd_texts(added_tokens: Sequence[str]) -> list[str]:
    """Texts on which tokenizers tend to differ: odd Unicode, white space, special tokens and their
    fragments."""
    texts = list(_ODD)
    for token in (*added_tokens[:48], *added_tokens[48:][-16:]):
        texts += [
            token,
            token + token,
            f" {token} ",
            f"a{token}b",
            f"a {token} b\n{token}\n",
            token[:-1],
            token[1:],
        ]
        texts += [f"{token.upper()} {token.lower()}"]
    draw = random.Random(0)
    ranges = ((0x20, 0x7F), (0x80, 0x24F), (0x250, 0x52F), (0x590, 0xDFF), (0x1E00, 0x27BF), (0x3000, 0x9FFF),
              (0xAC00, 0xD7A3), (0xF900, 0xFFEF), (0x10000, 0x1FAFF))  # fmt: skip
    for _ in range(96):
        low, high = draw.choice(ranges)
        letters = [chr(draw.randrange(low, high)) for _ in range(24)]
        letters += [draw.choice(" \n\t'.0aB") for _ in range(8)]
        draw.shuffle(letters)
        texts.append("".join(letters))
    return texts
