"""Words as ``nltk.word_tokenize`` cuts them (NLTK 3.5, the version that GenerationEval asks for).

``word_tokenize`` first splits a text into sentences with Punkt's trained English model and then cuts each sentence
by rules. The rules are ported here; the model is data that is not on every machine and not ours to ship. Where the
sentences begin matters only for a full stop that touches the word before it inside of a text, and for some quotes:
:func:`words` answers None for a text where it could matter, and is exact for all others, among them every text that
has its signs set apart as in the LoRA chain.

Source of the rules: nltk 3.5, nltk/tokenize/destructive.py, after Robert MacIntyre's tokenizer for the Penn Treebank.
"""

from __future__ import annotations

import re

_RULES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern, flags), replacement)
    for pattern, replacement, flags in (
        # quotes that open
        ("([«“‘„]|`+)", r" \1 ", 0),
        ('^"', "``", 0),
        ("(``)", r" \1 ", 0),
        (r"""([ (\[{<])("|'')""", r"\1 `` ", 0),
        (r"(')(?!re|ve|ll|m|t|s|d)(\w)\b", r"\1 \2", re.I),
        # signs
        (r"""([^.])(\.)([\])}>"'»”’ ]*)\s*$""", r"\1 \2 \3 ", 0),
        (r"([:,])([^\d])", r" \1 \2", 0),
        ("([:,])$", r" \1 ", 0),
        (r"(\.{2,})", r" \1 ", 0),
        ("([;@#$%&])", r" \1 ", 0),
        (r"""([^.])(\.)([\])}>"']*)\s*$""", r"\1 \2\3 ", 0),
        ("([?!])", r" \1 ", 0),
        ("([^'])' ", r"\1 ' ", 0),
        (r"(\*)", r" \1 ", 0),
        (r"([\][(){}<>])", r" \1 ", 0),
        ("(--)", r" \1 ", 0),
        (r"\A|\Z", " ", 0),
        # quotes that close
        ("([»”’])", r" \1 ", 0),
        ('"', " '' ", 0),
        (r"(\S)('')", r"\1 \2 ", 0),
        ("([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 ", 0),
        ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 ", 0),
        # words that are two
        (r"\b(can)(not)\b", r" \1 \2 ", re.I),
        (r"\b(d)('ye)\b", r" \1 \2 ", re.I),
        (r"\b(gim)(me)\b", r" \1 \2 ", re.I),
        (r"\b(gon)(na)\b", r" \1 \2 ", re.I),
        (r"\b(got)(ta)\b", r" \1 \2 ", re.I),
        (r"\b(lem)(me)\b", r" \1 \2 ", re.I),
        (r"\b(mor)('n)\b", r" \1 \2 ", re.I),
        (r"\b(wan)(na)\s", r" \1 \2 ", re.I),
        (r" ('t)(is)\b", r" \1 \2 ", re.I),
        (r" ('t)(was)\b", r" \1 \2 ", re.I),
    )
]

# Sentences can end only behind . ? or ! (and signs that close). There a break could change the words if a full stop
# touches the word before it, a sign follows without a space, or behind it two quotes touch or a tab stands.
_BREAK_MATTERS = re.compile(
    r"""
      (?<=[^.\s])\.(?=[\])}>"'»”’]*\s+\S)      # "word. Next"
    | [.?!](?=[?!)";}\]*:@'({[>»”’])          # "word.) Next", 'What?"'
    | [.?!].*(?:["'`]{2}|[^\S ])             # quotes that touch; a tab, which some rules do not take for a space
    """,
    re.VERBOSE | re.DOTALL,
)


def words(text: str) -> list[str] | None:
    """The words and signs of a text; None where they depend on Punkt's trained model.

    >>> words('"It\\'s a pub", they say ; is n\\'t it .')
    ['``', 'It', "'s", 'a', 'pub', "''", ',', 'they', 'say', ';', 'is', "n't", 'it', '.']
    """
    text = text.rstrip()  # as Punkt leaves the last sentence
    return None if _BREAK_MATTERS.search(text) else words_of_sentence(text)


def words_of_sentence(text: str) -> list[str]:
    """The words of one sentence, by the rules alone."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text.split()
