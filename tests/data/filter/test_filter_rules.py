"""What is kept is what the course's function keeps, whatever the bytes of the records look like."""

from __future__ import annotations

import json
import re
import string
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_corpora import KEYWORDS, any_keyword_in_string, as_jsonl, code, kept, run, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmtrain.data.filter import search
from lmtrain.data.filter.json_lines import _line_ends
from lmtrain.data.filter.rules import Rules, in_json_bytes, in_plain_bytes
from lmtrain.data.filter.search import search_for

LETTERS = 'ab/"\\\n\té日😀\u0007\x7fpn\ufffd'
TEXTS = st.text(alphabet=LETTERS + "cd ", max_size=24)
KEYS = st.lists(st.text(alphabet=LETTERS, min_size=1, max_size=4), min_size=1, max_size=3)


def spelled(draw: Any, text: str) -> str:
    """A JSON string of ``text`` in one of the many spellings that a writer may choose."""
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "/": "\\/", "\b": "\\b", "\f": "\\f"}
    out = []
    for letter in text:
        ways = ["".join(f"\\u{unit:{case}}" for unit in np.frombuffer(letter.encode("utf-16-le"), np.uint16))
                for case in ("04x", "04X")]  # fmt: skip
        if letter not in '"\\' and ord(letter) >= 0x20:
            ways.append(letter)
        if letter in short:
            ways.append(short[letter])
        out.append(draw(st.sampled_from(ways)))
    return '"' + "".join(out) + '"'


def holding(needles: list[bytes], texts: list[bytes]) -> list[int]:
    """The numbers of the texts that hold a needle, by each of the two searches."""
    data, offsets = memoryview(b"".join(texts)), np.cumsum([0, *map(len, texts)])
    ours, plain = search_for(needles), partial(search._with_re2, search.as_pattern(needles))
    found = ours(data, offsets).tolist()
    assert found == plain(data, offsets).tolist()
    return found


def found_in(needles: list[bytes], data: bytes) -> bool:
    return bool(holding(needles, [data]))


BITS = st.lists(st.text("ab", max_size=9).map(str.encode), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(BITS, st.lists(st.text("ab", min_size=1, max_size=5).map(str.encode), min_size=1, max_size=4))
def test_nothing_is_found_across_texts_nor_hidden_by_what_is(texts: list[bytes], needles: list[bytes]) -> None:
    expected = [number for number, text in enumerate(texts) if any(needle in text for needle in needles)]
    assert holding(needles, texts) == expected


@given(st.lists(st.integers(0, 900), max_size=90), st.booleans(), st.binary(max_size=9))
@settings(max_examples=100, deadline=None)
def test_where_lines_end(lengths: list[int], ended: bool, behind: bytes) -> None:
    for lines in ([b"x" * length for length in lengths], [b"x" * (length % 9) for length in lengths]):
        data = b"".join(line + b"\n" for line in lines) + (b"" if ended and lines else b"last")
        ends = _line_ends(bytearray(data + behind), len(data))
        starts = [0, *(ends[:-1] + 1)]
        assert [data[start:end] for start, end in zip(starts, ends, strict=True)] == data.splitlines()


@settings(max_examples=300, deadline=None)
@given(st.data(), KEYS, st.lists(TEXTS, min_size=1, max_size=4))
def test_no_spelling_of_json_hides_a_keyword(data: st.DataObject, keywords: list[str], parts: list[str]) -> None:
    if data.draw(st.booleans()):
        parts.insert(len(parts) // 2, data.draw(st.sampled_from(keywords)))
    text = "".join(parts)
    line = f'{{"content": {spelled(data.draw, text)}}}'
    assert json.loads(line)["content"] == text
    needles = in_json_bytes(keywords)
    if needles is not None and any_keyword_in_string(text, keywords):
        assert found_in(needles, line.encode()), "a record that is kept must be parsed"


@settings(max_examples=200, deadline=None)
@given(KEYS, TEXTS)
def test_plain_bytes_are_found_exactly(keywords: list[str], text: str) -> None:
    assert found_in(in_plain_bytes(keywords), text.encode()) == any_keyword_in_string(text, keywords)


def test_most_records_are_not_parsed() -> None:
    """The needles are no use if they are found everywhere."""
    needles = in_json_bytes(KEYWORDS)
    assert needles is not None
    lines = as_jsonl(code(500)).splitlines()
    lines.append(rb'{"content": "\u003cb\u003e caf\u00e9 \u001b[0m \u0000"}')
    found = [found_in(needles, line) for line in lines]
    wanted = [any_keyword_in_string(json.loads(line)["content"], KEYWORDS) for line in lines]
    assert found == wanted and 50 < sum(wanted) < 150
    assert in_json_bytes(["/"]) is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), KEYS, st.lists(TEXTS, min_size=1, max_size=12))
def test_the_command_keeps_what_the_chapter_keeps(
    tmp_path: Path, data: st.DataObject, keywords: list[str], texts: list[str]
) -> None:
    texts.append(texts[0] + keywords[0])  # so that something is kept
    file = tmp_path / "texts.jsonl"
    ends = st.sampled_from(["\n", "\r\n", " \n"])
    lines = [f'{{"n": {n}, "content": {spelled(data.draw, text)}}}{data.draw(ends)}' for n, text in enumerate(texts)]
    file.write_bytes("".join(lines).rstrip("\n" if data.draw(st.booleans()) else "").encode())
    report = run("--source", file, "--text_column", "content", "--output", tmp_path / "out", "--overwrite",
                 "--keep_any", *keywords)  # fmt: skip
    expected = [{"n": n, "content": text} for n, text in enumerate(texts) if any_keyword_in_string(text, keywords)]
    assert kept(tmp_path / "out") == expected
    size = file.stat().st_size + (not file.read_bytes().endswith(b"\n"))  # the last line counts as ended
    assert report["seen"] == {"documents": len(texts), "bytes": size}
    assert report["kept"]["documents"] == len(expected)


def test_every_rule_takes_its_own(tmp_path: Path) -> None:
    records = [
        {"path": "a.py", "content": "import pandas # good"},  # 20 characters
        {"path": "b.py", "content": "import numpy # good"},
        {"path": "c.js", "content": "pandas # good"},
        {"path": "d.py", "content": "pandas bad license # good"},
        {"path": "e.py", "content": "pandas, auto-generated 2020 # good"},
        {"path": "f.py", "content": "pandas#"},
        {"path": "g.py", "content": "pandas good " + "x" * 100},
        {"path": "h.py", "content": "sklearn and pandas without"},
        {"path": "pandas.py", "content": None},
    ]
    file = write(tmp_path / "a.jsonl", records)
    report = run(
        *("--source", file, "--text_column", "content", "--output", tmp_path / "out", "--keep_any", "pandas,sklearn"),
        *("--keep_regex", r"#", "g.*d", "--drop_any", "bad license", "--drop_regex", r"generated \d{4}"),
        *("--min_chars", 20, "--max_chars", 20, "--language_of_file", ".py"),
    )
    assert kept(tmp_path / "out") == records[:1]
    dropped = {rule: count["documents"] for rule, count in report["dropped"].items()}
    assert dropped == {"keep_any": 1, "language_of_file": 1, "keep_regex": 1, "drop_any": 1, "drop_regex": 1,
                       "min_chars": 1, "max_chars": 1}  # fmt: skip
    assert report["found"] == {"pandas": 7, "sklearn": 1}
    assert report["skipped"] == {"record without text": 1}
    size = file.stat().st_size
    unseen = len(json.dumps(records[-1])) + 1
    assert report["seen"] == {"documents": 8, "bytes": size - unseen}
    taken = sum(count["bytes"] for count in report["dropped"].values())
    assert report["kept"]["bytes"] + taken == report["seen"]["bytes"]


@pytest.mark.parametrize("keyword", ["a,b", "x\\y", "(re)+", "ä", "日本", "\\", '"', "/", "a/b"])
def test_keywords_are_literal(keyword: str) -> None:
    judge = Rules(keep_any=(keyword,)).compiled()
    assert judge(f"before{keyword}after", None) == (None, [keyword])
    assert judge("nothing of it", None) == ("keep_any", [])
    assert found_in(in_plain_bytes([keyword]), f"before{keyword}after".encode())


def test_quoting_leaves_nothing_to_re2() -> None:
    everything = "".join(map(chr, range(1, 0x180))) + string.punctuation
    assert found_in(in_plain_bytes([everything]), everything.encode())
    assert re.fullmatch(r"(?:[\w]|\\x[0-9a-f]{2})+", search.as_pattern(in_plain_bytes([everything])))
