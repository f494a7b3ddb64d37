from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmtrain.cli.main import main
from lmtrain.cli.nlg_score import run
from lmtrain.config.commands.nlg_score import NlgScoreOptions
from lmtrain.core.errors import UserError
from lmtrain.evaluate.nlg import java

TEXTS = ["alan bean was born in wheeler , texas .", "aarhus airport is in denmark", "it is long"]
OTHER = ["alan bean is from wheeler", "airport aarhus in denmark", "long"]


@pytest.fixture(autouse=True)
def _without_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jar takes ten seconds to read its tables, and nothing here is about it."""
    monkeypatch.setattr(java, "_package", lambda: None)


def _options(folder: Path, **changes: object) -> NlgScoreOptions:
    (folder / "a").write_text("".join(f"{text}\n" for text in TEXTS))
    (folder / "b").write_text("".join(f"{text}\n" for text in OTHER))
    (folder / "reference0").write_text(f"{TEXTS[0]}\nAarhus Airport is in Denmark.\nit is very long\n")
    (folder / "reference1").write_text("Alan Bean, Wheeler.\n\n\n")
    options = NlgScoreOptions(
        task="webnlg", predictions=str(folder / "a"), references=[str(folder / "reference")], bootstrap=100
    )
    for name, value in changes.items():
        setattr(options, name, value)
    return options


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_options(tmp_path, json=True, lora_chain=True, against=str(tmp_path / "b"))) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["scores"]["TER"] < record["against"]["scores"]["TER"]
    low, high = record["intervals"]["TER"]
    assert low <= record["scores"]["TER"] <= high
    assert record["against"]["differences"]["TER"]["difference"] < 0
    assert set(record["scores"]) == {"BLEU", "METEOR", "TER"}


def test_table_has_a_line_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_options(tmp_path, against=str(tmp_path / "b"))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "against" in lines[0] and "95 % interval" in lines[0]
    assert [line.split()[0] for line in lines[1:4]] == ["BLEU", "METEOR", "TER"]


def test_without_bootstrap_only_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_options(tmp_path, bootstrap=0)) == 0
    assert "interval" not in capsys.readouterr().out


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(UserError, match=r"which task.*--predictions.*--references"):
        run(NlgScoreOptions())


def test_outputs_of_different_lengths_are_refused(tmp_path: Path) -> None:
    options = _options(tmp_path)
    (tmp_path / "b").write_text("one\n")
    options.against = str(tmp_path / "b")
    with pytest.raises(UserError, match=r"--against: .*b has 1 predictions and .*a has 3"):
        run(options)


@pytest.mark.parametrize("flag", ["predictions", "against"])
def test_token_ids_are_no_texts(flag: str, tmp_path: Path) -> None:
    options = _options(tmp_path)
    (tmp_path / "ids").write_text('{"id": 0, "predict": [50256, 0]}\n' * 3)
    setattr(options, flag, str(tmp_path / "ids"))
    with pytest.raises(UserError, match=rf"--{flag}: .*ids holds token ids .*: lmtrain nlg text webnlg --predictions"):
        run(options)


def test_the_command_is_found_by_half_of_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "e2e"]) == 2
    assert "did you mean lmtrain nlg score?" in capsys.readouterr().err
