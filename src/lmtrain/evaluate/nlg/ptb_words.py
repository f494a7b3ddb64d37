"""Words of the Penn-Treebank kind, as Stanford CoreNLP 3.4.1 cuts them, for lines of plain English.

The COCO caption scorers cut text with Stanford's ``PTBTokenizer -preserveLines -lowerCase``, a Java program. This
is a port for the part of its grammar that data-to-text needs: words, numbers, prices, hyphens, slashes, quotes,
contractions. Whatever lies outside (abbreviations, addresses, telephone numbers, smileys, rare characters) is not
guessed: :func:`words` answers None and the caller takes the Java program or leaves the score out.
What is inside was compared with the Java program line by line (tests/evaluate/nlg/test_ptb_words.py).

The grammar is Stanford's ``PTBLexer.flex`` at CoreNLP v3.4.1: at each place the longest match wins, the text looked
ahead at included, and of equally long ones the first rule.
"""

from __future__ import annotations

import re
from functools import lru_cache

_LETTER = "A-Za-zÀ-ÖØ-öø-ÿ"  # the letters proven; other scripts go to the Java program
_APOSTROPHE = "['’]"

# Words that keep a full stop behind them, at least before some other words, in lower case; so does any single letter.
_ABBREVIATIONS = [
    "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "mon", "tue", "tues",
    "wed", "thu", "thurs", "fri", "ala", "ariz", "az", "ark", "calif", "colo", "conn", "ct", "dak", "del", "fla",
    "ga", "ill", "ind", "kan", "kans", "ky", "la", "mass", "md", "mich", "minn", "miss", "mo", "mont", "neb",
    "nev", "okla", "ore", "pa", "penn", "tenn", "tex", "va", "vt", "wash", "wis", "wisc", "wyo", "inc", "co",
    "cos", "corp", "pty", "pte", "ptys", "ptes", "ppty", "ppte", "pptys", "pptes", "ltd", "plc", "rt", "bancorp",
    "bhd", "assn", "univ", "intl", "sys", "tel", "est", "ext", "sq", "jr", "sr", "bros", "blvd", "rd", "esq",
    "etc", "al", "seq", "bldg", "mr", "mrs", "ms", "dr", "drs", "prof", "profs", "sen", "sens", "rep", "reps",
    "atty", "attys", "lt", "col", "gen", "messrs", "gov", "govs", "adm", "rev", "maj", "sgt", "cpl", "pvt", "capt",
    "st", "ste", "ave", "pres", "lieut", "hon", "brig", "cmdr", "comdr", "pfc", "spc", "supt", "supts", "det",
    "mt", "ft", "adj", "adv", "asst", "assoc", "ens", "insp", "mlle", "mme", "msgr", "sfc", "invt", "elec", "natl",
    "mtg", "mfg", "dept", "vs", "alex", "wm", "jos", "cie", "cf", "treas", "ph", "ca", "fig", "figs", "prop", "no",
    "nos", "art", "pp", "op",
]  # fmt: skip

# Any of these means: not for this port. Each is wider than the rule of the grammar that it keeps away.
_OUTSIDE = re.compile(
    rf"""
      [^{_LETTER}0-9 .,;:!?'"()\-/&£€$%’‘“”–—]              # a character not proven
    | \.[,;:]                                               # a word before both keeps its full stop
    | (?<![{_LETTER}])(?<![{_LETTER}]['’]) (?:{"|".join(_ABBREVIATIONS)}|[{_LETTER}]) \.
    | [0-9]\w*\.[{_LETTER}] | [{_LETTER}]\.[0-9]            # file names, 5.p.m
    | \.[{_LETTER}](?!\w) | (?<![{_LETTER}])[{_LETTER}]\.\w   # acronyms
    | www\. | \.(?:com|net|org|edu) | ://                   # addresses
    | \.[ ]\.[0-9]                                          # dots with gaps are one sign, and then no .5
    | [0-9][ -][0-9]{{3,4}}[ -]?[0-9]{{3}} | \([0-9]{{2,3}}\)[ ]?[0-9]{{3}} | [0-9]\.[0-9]{{3,4}}\.[0-9]{{3}}  # phones
    | [0-9][ ][0-9]{{1,4}}/[0-9]                            # 4 1/2 is one word
    | (?<![ ])& | ^&(?!\ |$) | (?<=\ )&(?!\ |$)             # B&B, &amp;
    | [A-Z]\$ | -[lr][rcs]b- | (?<![{_LETTER}])(?:pro|anti)-(?!\w)
    | [:;=][-o'’]?[()dpo](?![A-Za-z0-9]) | \([-'’x.]+\)     # smileys
    | ['’‘“”]{{2}}                                          # quotes of several characters
    | cont['’]d\. | (?<![{_LETTER}])(?:ol|somethin|dunkin)['’]
    """,
    re.VERBOSE | re.IGNORECASE,
)

# The places where an apostrophe is understood; any other is outside.
_KNOWN_APOSTROPHE = re.compile(
    rf"""
      (?<=[{_LETTER}][{_LETTER}]) ['’] (?i:s|m|d|re|ve|ll)(?!\w)                 # it's, they're
    | (?:(?<=^)|(?<=[ ("“‘])) [A-Za-z]*[A-MO-Za-mo-z][nN]['’][tT](?!\w)          # isn't
    | (?: (?<=[{_LETTER}][{_LETTER}]) | (?<=[.,!?)%]) ) ['’] (?=[ .,;:!?)]|$)    # the owners' menu; a closing quote
    | (?:(?<=^)|(?<=[ ("])) ' (?=[A-Za-z]{{2}})
      (?!(?i:em|til|cause|twas|tis|n[^A-Za-z]|(?:[smd]|re|ve|ll)(?![A-Za-z])))   # an opening quote
    | (?:(?<=^)|(?<=[ ("])) ‘ (?=[{_LETTER}]{{2}})
    | (?:(?<=^)|(?<=[ ])) (?:' (?i:s|m|d|re|ve|ll|t)? | [nN]'[tT]) (?=[ ]|$)     # cut before: it 's, is n't
    """,
    re.VERBOSE,
)
_ANY_APOSTROPHE = re.compile("['’‘]")

_WORD = rf"[{_LETTER}][{_LETTER}0-9]*(?:[.!?][{_LETTER}][{_LETTER}0-9]*)*"
_FIGURE = r"(?:[0-9]*(?:[.:,][0-9]+)+|[0-9]+)"
_PIECE = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_HYPHENATED = r"[A-Za-z0-9][A-Za-z0-9.,]*(?:-[A-Za-z0-9]+)+"

# In the grammar's order. A group named `ahead` is looked at and not taken, but counts for the length.
_RULES = [
    re.compile(rule)
    for rule in (
        "[–—]",
        rf"{_WORD}(?=(?P<ahead>{_APOSTROPHE}(?:[msdMSD]|(?i:re|ve|ll))))",
        rf"[A-Za-z]*[A-MO-Za-mo-z](?=(?P<ahead>[nN]{_APOSTROPHE}[tT]))",
        _WORD,
        rf"{_APOSTROPHE}(?:[msdMSD]|(?i:re|ve|ll))(?=(?P<ahead>[^A-Za-z]|$))",
        rf"[nN]{_APOSTROPHE}[tT](?=(?P<ahead>[^A-Za-z]|$))",
        r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}",
        f"-?{_FIGURE}",
        r"(?:[0-9]{1,4}-)?[0-9]{1,4}/[0-9]{1,4}",
        rf"{_PIECE}(?:/{_PIECE}){{1,2}}",
        r"[$£€]",
        '"',
        r"\(",
        r"\)",
        "-+",
        r"\.{3,5}",
        "[,;:]",
        "[?!]+",
        r"\.",
        "/",
        _HYPHENATED,
        rf"[{_LETTER}0-9]+(?:-[{_LETTER}0-9]+)*",
        r"'(?=(?P<ahead>[A-Za-z][^ ]))",
        "['’‘“”]",
        "[%&]",
    )
]
# What the grammar writes in place of what it read. Quotes need no exact form: all of them are left out of scores.
_WRITTEN = {
    "–": "--", "—": "--", "---": "--", "----": "--", "....": "...", ".....": "...", 
    "(": "-lrb-", ")": "-rrb-", "£": "#", "€": "$", '"': "''", "’": "'", "‘": "`", "“": "``", "”": "''",
}  # fmt: skip
_TWO_WORDS = {"cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3}  # letters of the first

# COCO's list of what is not a word. It knows brackets in upper case only, so `-lrb-` stays (as there).
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])


def words(line: str) -> list[str] | None:
    """The words of a line in lower case, without punctuation as COCO means it; None where this port is not proven.

    >>> words("It's a £20-25, kid-friendly pub (isn't it).")
    ['it', "'s", 'a', '#', '20-25', 'kid-friendly', 'pub', '-lrb-', 'is', "n't", 'it', '-rrb-']
    """
    if _OUTSIDE.search(line) or _ANY_APOSTROPHE.search(_KNOWN_APOSTROPHE.sub("", line)):
        return None
    found: list[str] = []
    for chunk in line.split(" "):
        if chunk:
            found += _cut(chunk)
    return found


@lru_cache(maxsize=1 << 16)
def _cut(chunk: str) -> tuple[str, ...]:
    """The words of a piece of text without spaces; outside of :data:`_OUTSIDE` no rule looks beyond a space."""
    found: list[str] = []
    place = 0
    while place < len(chunk):
        best, longest, looked = None, 0, 0
        for rule in _RULES:
            match = rule.match(chunk, place)
            if match is None:
                continue
            ahead = len(match["ahead"]) if "ahead" in rule.groupindex else 0
            if match.end() - place + ahead > longest:
                best, longest, looked = match, match.end() - place + ahead, ahead
        assert best is not None, f"{chunk!r} at {place} is outside of the rules"
        text = best[0]
        place = best.end()
        first = _TWO_WORDS.get(text.lower(), 0)
        if first and not looked:  # "gonna's" is seen as a word with 's, by the longer match
            found += [text[:first].lower(), text[first:].lower()]
        else:
            found.append(_WRITTEN.get(text, text.replace("’", "'")).lower())
    return tuple(word for word in found if word not in PUNCTUATION)
