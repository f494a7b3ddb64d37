"""The corpora's own files become the records that the original converters write, to the byte."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmtrain.core.errors import UserError
from lmtrain.data.nlg.formats import convert
from lmtrain.data.nlg.records import Group, Record, grouped, read_records, write_records

E2E = (
    "name : Aroma | area : riverside||Aroma is by the river . \n"
    "name : Aroma | area : riverside||  Aroma , at the river ||and more\n"
    "\n"
    '  name : "Café" | eatType : pub  ||Café\u00a0ist\u2028ein "Pub"\t.\r\n'
    "||Nothing is said\n"
    "name : Zizzi||no line break at the end"
)
WEBNLG: dict[str, Any] = {
    "version": 1,
    "entries": [
        {
            "1": {
                "category": "Airport",
                "modifiedtripleset": [
                    {"subject": "Aarhus_Airport", "property": "cityServed", "object": '"Aarhus, Denmark"'},
                    {"subject": "Aarhus_Airport", "property": "runwayLength", "object": "2776.0"},
                ],
                "lexicalisations": [
                    {"comment": "good", "lang": "", "lex": "Aarhus Airport serves Aarhus."},
                    {"comment": "toFix", "lex": "is wrong"},
                    {"comment": "good", "lex": " Århus has an airport, 2776 m. "},
                ],
            }
        },
        {
            "2": {
                "category": "Athlete",
                "modifiedtripleset": [{"subject": "A", "property": "club", "object": "B"}],
                "lexicalisations": [{"comment": "good", "lex": "A plays for B."}],
            }
        },
    ],
}
DART: list[dict[str, Any]] = [
    {
        "tripleset": [["Mars Hill College", "JOINED", "1973"], ["[TABLECONTEXT]", "Title Of", "Été"]],
        "subtree_was_extended": True,
        "annotations": [{"source": "WikiSQL", "text": "It joined in 1973."}, {"source": "x", "text": "1973 "}],
    },
    {"tripleset": [["a", "b", "c"]], "annotations": []},
]


def sample(form: str, folder: Path) -> Path:
    path = folder / form
    if form == "e2e":
        path.write_bytes(E2E.encode())
    else:
        path.write_text(json.dumps(WEBNLG if form == "webnlg" else DART, indent=2, ensure_ascii=False), "utf-8")
    return path


EXPECTED = {
    "e2e": [
        r'{"context": "name : Aroma | area : riverside", "completion": "Aroma is by the river ."}',
        r'{"context": "name : Aroma | area : riverside", "completion": "  Aroma , at the river "}',
        r'{"context": "name : \"Caf\u00e9\" | eatType : pub  ", '
        r'"completion": "Caf\u00e9\u00a0ist\u2028ein \"Pub\"\t."}',
        r'{"context": "", "completion": "Nothing is said"}',
        r'{"context": "name : Zizzi", "completion": "no line break at the end"}',
    ],
    "webnlg": [
        r'{"context": "Aarhus_Airport : cityServed : \"Aarhus, Denmark\" | Aarhus_Airport : runwayLength : 2776.0", '
        r'"completion": "Aarhus Airport serves Aarhus.", "cate": true}',
        r'{"context": "Aarhus_Airport : cityServed : \"Aarhus, Denmark\" | Aarhus_Airport : runwayLength : 2776.0", '
        r'"completion": " \u00c5rhus has an airport, 2776 m. ", "cate": true}',
        r'{"context": "A : club : B", "completion": "A plays for B.", "cate": false}',
    ],
    "dart": [
        r'{"context": "Mars Hill College : joined : 1973 | [TABLECONTEXT] : title of : \u00c9t\u00e9", '
        r'"completion": "It joined in 1973."}',
        r'{"context": "Mars Hill College : joined : 1973 | [TABLECONTEXT] : title of : \u00c9t\u00e9", '
        r'"completion": "1973 "}',
    ],
}


@pytest.mark.parametrize("form", EXPECTED)
def test_the_records_are_these(tmp_path: Path, form: str) -> None:
    lines = EXPECTED[form]
    contexts = len({json.loads(line)["context"] for line in lines})
    assert convert(form, sample(form, tmp_path), tmp_path / "out.jsonl") == (len(lines), contexts)
    assert (tmp_path / "out.jsonl").read_text("utf-8").splitlines() == lines


MIRROR = Path(os.environ.get("LMTRAIN_LORA_REPOSITORY", "no repository"))  # of microsoft/LoRA
SHARED = Path("/work/shared/data/e2e")


def original(form: str, source: Path, folder: Path) -> bytes:
    """What the original converter makes of a file."""
    name = f"format_converting_{form}.py"
    shown = subprocess.run(
        ["git", "-C", MIRROR, "show", f"HEAD:examples/NLG/src/{name}"], capture_output=True, check=True
    )
    (folder / name).write_bytes(shown.stdout)
    subprocess.run([sys.executable, folder / name, source, folder / "theirs"], check=True, stdout=subprocess.DEVNULL)
    return (folder / "theirs").read_bytes()


@pytest.mark.skipif(not MIRROR.is_dir(), reason="LMTRAIN_LORA_REPOSITORY names no repository")
@pytest.mark.parametrize("form", EXPECTED)
def test_they_are_the_original_converters(tmp_path: Path, form: str) -> None:
    source = sample(form, tmp_path)
    if form == "e2e":  # the original fails at blank lines
        source.write_bytes(E2E.replace("\n\n", "\n").encode())
    convert(form, source, tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == original(form, source, tmp_path)


@pytest.mark.skipif(not MIRROR.is_dir() or not SHARED.is_dir(), reason=f"needs {MIRROR} and {SHARED}")
@pytest.mark.parametrize(("name", "size"), [("test.txt", (4693, 630)), ("valid.txt", (4672, 547))])
def test_real_e2e_is_the_original_converters_to_the_byte(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    assert convert("e2e", SHARED / name, tmp_path / "ours") == size
    assert (tmp_path / "ours").read_bytes() == original("e2e", SHARED / name, tmp_path)


def entry(**changes: Any) -> str:
    return json.dumps({"entries": [{"1": {**WEBNLG["entries"][0]["1"], **changes}}]}, indent=1)


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("e2e", "a||b\nno mark\n", r"x:2: no '\|\|' between"),
        ("e2e", "a||b\n\na|| \n", r"x:3: nothing behind '\|\|'"),
        ("e2e", "", "x: the file is empty"),
        ("e2e", "\n \n", "x: there is no text in it"),
        ("dart", "{}", r"x:1: '\[' expected, not '\{'"),
        ("dart", '[\n{"tripleset": [["a", "b"]], "annotations": []}]', r"x:2: entry 1 .*subject, relation and object"),
        ("dart", '[{"tripleset": [["a", "b", 3]], "annotations": []}]', r"x:1: entry 1 .*three texts"),
        ("dart", '[{"tripleset": [], "annotations": [{"text": ""}]}]', r"x:1: entry 1 .*the text 'text' is empty"),
        ("dart", '[{"tripleset": 3}]', r"x:1: entry 1 is not one of DART: a list 'tripleset' is expected, not '3'"),
        ("dart", '[{"tripleset": [], "annotations": []}', r"x:1: .* expected, but the file ends"),
        ("dart", '[{"tripleset": [], "annotations": []}] 7', r"x:1: '7' after the end"),
        ("dart", "[]", "x: there is no text in it"),
        ("dart", '[{"tripleset": [["\\udc41", "b", "c"]], "annotations": []}]', r"entry 1 .*surrogate pair \(.udc41\)"),
        ("webnlg", entry(lexicalisations=[{"comment": "good", "lex": "\ud83d"}]), r"x:3: entry 1 .*'lex' holds half a"),
        ("webnlg", "[]", r"x:1: '\{' expected, not '\['"),
        ("webnlg", '{"data": []}', "x:1: WebNLG's JSON is an object with the list 'entries'"),
        ("webnlg", '{"entries":\n[\n{"2": {}}]}', r"x:3: entry 1 is not one of WebNLG 2017: an object '1' is expected"),
        ("webnlg", entry(modifiedtripleset=[{"subject": "a", "property": "b"}]), r"x:3: entry 1 .* a text 'object' is"),
        ("webnlg", entry(category=None), r"x:3: entry 1 .* a text 'category' is expected"),
        ("webnlg", entry(lexicalisations=[{"comment": "good", "lex": " "}]), r"x:3: entry 1 .* 'lex' is empty"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(tmp_path: Path, form: str, text: str, said: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(UserError, match=said):
        convert(form, tmp_path / "x", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


def test_the_challenge_s_own_table_has_the_records_of_its_lines(tmp_path: Path) -> None:
    """trainset.csv and devset.csv: quoted where there are commas, the columns named in the first row."""
    texts = [
        ("name[Aroma], area[riverside]", "Aroma is by the river."),
        ('name["Café"], near[Zizzi]', 'A "pub", and near\u2028Zizzi.'),
        ("name[Zizzi]", "No comma here"),
    ]
    (tmp_path / "lines.txt").write_text("".join(f"{mr}||{ref}\n" for mr, ref in texts), "utf-8")
    assert convert("e2e", tmp_path / "lines.txt", tmp_path / "lines.jsonl") == (3, 3)
    for head, order in (("mr,ref", (0, 1)), ('\ufeff"MR","ref"', (0, 1)), ("ref,mr", (1, 0))):
        rows = [[f'"{text[at].replace(chr(34), chr(34) * 2)}"' for at in order] for text in texts]
        table = "\r\n".join([head, *map(",".join, rows), ""]).replace('"No comma here"', "No comma here")
        (tmp_path / "t.csv").write_bytes(table.encode())
        assert convert("e2e", tmp_path / "t.csv", tmp_path / "table.jsonl") == (3, 3)
        assert (tmp_path / "table.jsonl").read_bytes() == (tmp_path / "lines.jsonl").read_bytes()
    (tmp_path / "t.csv").write_text('mr,ref\na,"two\nlines"\n\nb,\n')
    with pytest.raises(UserError, match=r"t\.csv:5: nothing in the column ref"):
        convert("e2e", tmp_path / "t.csv", tmp_path / "none")
    for row, said in (("a,b,c", ":2: 3 fields, and the first line names 2 columns"), ('a,"b', ":2: broken CSV")):
        (tmp_path / "t.csv").write_text(f"mr,ref\n{row}\n")
        with pytest.raises(UserError, match=said):
            convert("e2e", tmp_path / "t.csv", tmp_path / "none")
    (tmp_path / "t.csv").write_text('mr,ref\na,"two\nlines"\n')
    convert("e2e", tmp_path / "t.csv", tmp_path / "table.jsonl")
    assert read_records(tmp_path / "table.jsonl") == [Record("a", "two lines")]


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    for form, before in (("e2e", b"a||b\nc||"), ("dart", b"[\n")):
        (tmp_path / "x").write_bytes(before + b"\xe9\xe9")
        with pytest.raises(UserError, match=r"x:2: not UTF-8: .*; write the text in UTF-8 first") as told:
            convert(form, tmp_path / "x", tmp_path / "out")
        assert "--encoding" not in str(told.value), "which nlg convert does not have"
    with pytest.raises(UserError, match="no such file"):
        convert("e2e", tmp_path / "y", tmp_path / "out")


def test_a_compressed_file(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a||b\n"))
    assert convert("e2e", tmp_path / "x.gz", tmp_path / "out") == (1, 1)


def test_records_come_back_and_group_by_their_context(tmp_path: Path) -> None:
    records = [Record("b", "1", True), Record("a", "2", False), Record("b", "3\n", True), Record("", "é")]
    assert write_records(tmp_path / "r", records) == 4
    assert read_records(tmp_path / "r") == records
    assert grouped(records) == [Group("b", ["1", "3\n"], True), Group("a", ["2"], False), Group("", ["é"])]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"context": "a", "completion": "b"}\n{broken', "r:2: broken JSON"),
        ('{"context": "a"}', "r:1: not a record"),
        ('{"context": "a", "completion": [1]}', "r:1: not a record"),
        ("[]", "r:1: not a record"),
        ('{"context": "a", "completion": " "}', "r:1: the completion is empty"),
        ('{"context": "a", "completion": "b \\ud83d"}', r"r:1: half a surrogate pair \(\\ud83d\)"),
        ("\n\n", "r: there is no record in it"),
    ],
)
def test_wrong_records_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r").write_text(text)
    with pytest.raises(UserError, match=said):
        read_records(tmp_path / "r")
