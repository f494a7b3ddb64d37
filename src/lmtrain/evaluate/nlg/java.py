"""The two Java programs of the official scorers, as the PyPI package pycocoevalcap carries them.

Each call is one process that reads everything, answers and ends; nothing stays behind.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lmtrain.evaluate.nlg.statistics import NotComputableError

_SECONDS = 900  # the METEOR jar reads its 62 MB paraphrase table first, some seconds; then thousands of lines a second
_METEOR = "meteor/meteor-1.5.jar"
_STANFORD = "tokenizer/stanford-corenlp-3.4.1.jar"


def require_meteor() -> None:
    """Raise :class:`NotComputableError` where what :func:`meteor_statistics` starts is not on this machine."""
    _find(_METEOR)
    _java()


def meteor_statistics(requests: list[str]) -> list[str]:
    """An answer line of METEOR 1.5 (English, normalized) for each ``SCORE ||| reference ||| ... ||| prediction``."""
    jar = _find(_METEOR)
    arguments = ["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    text = "".join(f"{request}\n" for request in requests)
    answers = _run("METEOR", arguments, text).splitlines()
    if len(answers) != len(requests):
        raise NotComputableError(f"the METEOR jar answered {len(answers)} of {len(requests)} lines")
    return answers


def stanford_words(lines: list[str]) -> list[str]:
    """The lines as Stanford's PTB tokenizer cuts and lower-cases them, words separated by spaces."""
    jar = _find(_STANFORD)
    program = "edu.stanford.nlp.process.PTBTokenizer"
    with tempfile.TemporaryDirectory(prefix="lmtrain-") as folder:
        path = Path(folder, "lines.txt")
        path.write_bytes("\n".join(lines).encode())
        output = _run("Stanford's tokenizer", ["-cp", str(jar), program, "-preserveLines", "-lowerCase", str(path)])
    cut = output.split("\n")[: len(lines)]
    if len(cut) != len(lines):
        raise NotComputableError(f"Stanford's tokenizer answered {len(cut)} of {len(lines)} lines")
    return cut


def _run(name: str, arguments: list[str], text: str = "") -> str:
    command = [_java(), "-Dfile.encoding=UTF-8", *arguments]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotComputableError(f"{name} did not end within {_SECONDS} s") from error
    except OSError as error:
        raise NotComputableError(f"{name} cannot be started: {error.strerror or error}") from error
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise NotComputableError(f"{name} ended with code {done.returncode}: {last}")
    return done.stdout.decode()


def _java() -> str:
    path = shutil.which("java")
    if path is None:
        raise NotComputableError("there is no `java` on the PATH (any Java from 8 on)")
    return path


@cache
def _package() -> Path | None:
    spec = find_spec("pycocoevalcap")  # the folder is enough: nothing of it is imported
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _find(jar: str) -> Path:
    package = _package()
    if package is None:
        raise NotComputableError("the package pycocoevalcap is not installed: pip install 'lmtrain[nlg]'")
    if not (package / jar).is_file():
        raise NotComputableError(f"the package pycocoevalcap has no {jar}")
    return package / jar
