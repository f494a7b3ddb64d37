"""The encoder of a preparation: the fast one where it proves equal on a sample of all the text, else the plain one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from lmtrain.core.types import Source, Tally
from lmtrain.data.preparing.request import Request
from lmtrain.data.sources.segments import size_of
from lmtrain.data.sources.text import TextSource
from lmtrain.data.store import require_space, token_dtype
from lmtrain.data.tokenization import DiffersError, Encoder, Proof, choose_encoder, reference_encoder
from lmtrain.data.tokenizer_files import TokenizerFiles

_SAMPLED_SOURCES = 40


class Engine:
    """``encoder``, its ``proof`` (None: it is the plain one, which needs none), and why it was chosen."""

    def __init__(self, encoder: Encoder, proof: Proof | None, line: str) -> None:
        self.encoder, self.proof, self._line = encoder, proof, line

    @property
    def line(self) -> str:
        """For people: with a proof, on how much text."""
        return self.proof.line if self.proof else self._line

    @property
    def claim(self) -> str:
        """The same for a manifest, which holds nothing that depends on who made which part."""
        return self.proof.claim if self.proof else self._line

    @classmethod
    def chosen(cls, tokenizer: TokenizerFiles, sample: Sequence[str]) -> Engine:
        return cls(*choose_encoder(tokenizer, sample))

    @classmethod
    def after(cls, tokenizer: TokenizerFiles, error: DiffersError) -> Engine:
        """When the fast engine turned out to differ at a place that the first proof did not see."""
        line = f"fastokens not used: {error}; tokenizers tokenizes, slower"
        return cls(reference_encoder(tokenizer), None, line)


def sample_of(sources: Sequence[Source], seed: str) -> list[str]:
    """The beginning of the corpus, and of some of its sources a place near theirs: texts that the engines are compared
    on first."""
    draw = random.Random(seed)
    chosen = sorted(draw.sample(range(len(sources)), min(_SAMPLED_SOURCES, len(sources))))
    texts = []
    for source, count in [(sources[0], 8), *((sources[i], 1) for i in chosen)]:
        for piece in islice(source.pieces(Tally()), count):
            length = 4096 if count > 1 else 2048
            start = 0 if count > 1 else draw.randrange(max(1, len(piece.text) - length))
            texts.append(piece.text[start : start + length])
    return texts


def require_room(
    request: Request, encoder: Encoder, sample: Sequence[str], folder: Path, flag: str, share: float = 1.0
) -> None:
    """Stop before the work when the disk cannot hold the result, as far as that can be told: packed files are larger
    than they look, and of records nobody knows how much is text."""
    plain = [s for s in request.sources if isinstance(s, TextSource) and s.reading.codec == "utf-8"]
    size = sum(size_of(source) for source in plain)
    sampled = sum(len(text.encode("utf-8")) for text in sample)
    if size and sampled:
        tokens = share * size * len(encoder.encode(sample)[0]) / sampled
        require_space(folder, int(tokens * token_dtype(request.tokenizer.n_ids).itemsize), "the token store", flag)
