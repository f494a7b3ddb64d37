"""Scores of the corpora in nlg_texts.py by the official programs, into official.json beside this file.

    python3 -m venv ref && ref/bin/pip install nltk==3.5 pyter3==0.3 pycocoevalcap==1.2 future numpy
    git clone https://github.com/tuetschek/e2e-metrics       # 1b9c4d8
    git clone https://github.com/WebNLG/GenerationEval       # 8067849
    ref/bin/python tests/evaluate/nlg/make_fixtures.py e2e-metrics GenerationEval

Needs Java and Perl. Of the official programs only what these scores do not use is replaced by nothing (plotting,
BERTScore, BLEURT, Russian). Two parts are not the downloads the programs name: the two jars are those of pycocoevalcap
(METEOR 1.5, CoreNLP 3.4.1: the same releases), and NLTK's sentence splitter runs without its trained English model;
test_nltk_words.py shows that no choice of sentence breaks changes these texts' words, those of `templates` excepted:
of these only BLEU is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from nlg_texts import E2E, WEBNLG, Corpus

HERE = Path(__file__).resolve().parent


class _Nothing(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _stand_in(*names: str) -> None:
    for name in names:
        sys.modules[name] = _Nothing(name)


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _package() -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    assert spec and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def e2e(folder: Path) -> dict[str, Any]:
    """``measure_scores.py -p`` in full precision, by sentence too for the caption scores."""
    package = _package()
    for part in ("meteor/meteor-1.5.jar", "tokenizer/stanford-corenlp-3.4.1.jar", "meteor/data"):
        if not (folder / "pycocoevalcap" / part).exists():
            (folder / "pycocoevalcap" / part).symlink_to(package / part)
    _stand_in("matplotlib", "matplotlib.collections", "matplotlib.patches", "skimage", "skimage.draw")
    sys.path.insert(0, str(folder))
    measure = _load("measure_scores", folder / "measure_scores.py")
    found = {}
    for name, corpus in E2E.items():
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, "out.txt").write_text("".join(f"{text}\n" for text, _ in corpus), encoding="utf-8")
            groups = ["".join(f"{reference}\n" for reference in references) for _, references in corpus]
            Path(scratch, "ref.txt").write_text("\n".join(groups), encoding="utf-8")
            _, references, texts = measure.load_data(f"{scratch}/ref.txt", f"{scratch}/out.txt")
            caption = measure.run_coco_eval(references, texts)
            scores = {**caption.eval, **measure.run_pymteval(references, texts)}
        sentences = [caption.imgToEval[f"inst-{number}"] for number in range(len(corpus))]
        names = ("METEOR", "ROUGE_L", "CIDEr")
        found[name] = {
            "scores": {metric: float(value) for metric, value in scores.items()},
            "sentences": {metric: [float(each[metric]) for each in sentences] for metric in names},
        }
    return found


def webnlg(folder: Path) -> dict[str, Any]:
    """GenerationEval's bleu, meteor and ter; BLEU as the script's whole line. Files end without a line break."""
    _stand_in("bert_score", "metrics", "metrics.chrF", "metrics.bleurt", "metrics.bleurt.bleurt", "razdel", "tabulate")
    for name in [name for name in sys.modules if name.startswith("nltk")]:
        del sys.modules[name]
    import nltk
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    nltk.tokenize.sent_tokenize = lambda text, language="english": PunktSentenceTokenizer().tokenize(text)
    evaluation = _load("generation_eval", folder / "eval.py")
    evaluation.METEOR_PATH = str(_package() / "meteor/meteor-1.5.jar")
    os.chdir(folder)
    found = {}
    for name, corpus in WEBNLG.items():
        ranks = len(corpus[0][1])
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, "hyp").write_text("\n".join(text for text, _ in corpus), encoding="utf-8")
            for rank in range(ranks):
                path = Path(scratch, f"reference{rank}" if ranks > 1 else "reference")
                path.write_text("\n".join(references[rank] for _, references in corpus), encoding="utf-8")
            stem = f"{scratch}/reference"
            _, references_tok, _, hypothesis_tok = evaluation.parse(stem, f"{scratch}/hyp", ranks)
            files = [f"{stem}{rank}" for rank in range(ranks)] if ranks > 1 else [stem]
            with Path(scratch, "hyp").open("rb") as stream:
                line = subprocess.check_output(["perl", evaluation.BLEU_PATH, *files], stdin=stream, text=True)
            assert evaluation.bleu_score(stem, f"{scratch}/hyp", ranks) == float(re.findall("BLEU = (.+?),", line)[0])
            found[name] = {"bleu": line.strip()}
            if name == "templates":
                continue
            found[name] |= {
                "METEOR": evaluation.meteor_score(references_tok, hypothesis_tok, ranks),
                "TER": evaluation.ter_score(references_tok, hypothesis_tok, ranks),
            }
    return found


def digest(*corpora: dict[str, Corpus]) -> str:
    """What official.json was made from, so that a changed text is noticed."""
    return hashlib.sha256(json.dumps(corpora, ensure_ascii=False).encode()).hexdigest()


def _version(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return next(line for line in (done.stdout + done.stderr).splitlines() if line.strip())


def main() -> None:
    folders = [Path(argument).resolve() for argument in sys.argv[1:3]]
    with contextlib.redirect_stdout(io.StringIO()):
        found = {"e2e": e2e(folders[0]), "webnlg": webnlg(folders[1])}
    made = {
        "made by": "tests/evaluate/nlg/make_fixtures.py",
        "sources": {"tuetschek/e2e-metrics": "1b9c4d8", "WebNLG/GenerationEval": "8067849"},
        "versions": {name: importlib.metadata.version(name) for name in ("nltk", "pyter3", "pycocoevalcap", "numpy")},
        "java": _version("java", "-version"),
        "perl": _version("perl", "-e", "print $^V"),
        "texts": digest(E2E, WEBNLG),
        **found,
    }
    (HERE / "official.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
