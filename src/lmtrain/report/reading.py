"""A run folder as one value, whatever parts of it are there."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from lmtrain.config.commands import OTHER_COMMANDS, TRAINING_COMMANDS
from lmtrain.config.flags import flag_table
from lmtrain.config.save import without_secrets
from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.core.secrets import without_keys
from lmtrain.report.log import History, Log, listed, mapping

LOG: Final = "metrics.jsonl"
_PARTS: Final = {
    "record": "run.json",
    "decisions": "decisions.json",
    "data": "data.json",
    "status": "status.json",
    "exported": "export.json",
    "results": "all_results.json",
    "shape": "config.json",
}
_SCORES: Final = "../scores.json"  # of a recipe, in the folder that holds its trainings
_RECIPES: Final = ("nlg", "nlg demo")
_AT_WORK: Final = ("preparing", "training", "saving", "evaluating", "uploading")
_RECENT: Final = 120.0  # seconds: a log written to since then is that of a run at work, on whatever machine


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder: the parts that were there, the others empty.

    ``record`` is ``run.json`` without secrets, ``shape`` the model's ``config.json``, ``scores`` the table of the
    recipe that it is a training of. ``state`` is that of ``status.json``, or ``"lost"`` for a run that says it is at
    work while nothing is. ``unreadable`` names files that are there and broken.
    """

    path: Path
    name: str
    state: str
    history: History
    record: dict[str, Any] = field(default_factory=dict)
    decisions: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    exported: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        return str(self.record.get("command", ""))

    @property
    def options(self) -> dict[str, Any]:
        found = self.record.get("options")
        return found if isinstance(found, dict) else {}

    @property
    def is_at_work(self) -> bool:
        return self.state in _AT_WORK

    @property
    def step(self) -> int:
        """The last one of which anything is known."""
        steps = self.history.train["step"]
        told = self.status.get("step")
        return max(int(steps[-1]) if len(steps) else 0, told if isinstance(told, int) else 0)

    @property
    def steps(self) -> int | None:
        """How many there are to be; None where the log does not say."""
        told = [event.get("steps") for event in self.history.events if event["event"] == "begin"]
        if told and isinstance(told[-1], int):
            return told[-1]
        return self.step if self.state == "finished" else None


class Reader:
    """Reads the run in ``folder`` again and again; of its log only what is new.

    Raises :class:`UserError` for a folder that is none or has no log.
    """

    def __init__(self, folder: str, name: str | None = None) -> None:
        self.path = user_path(folder)
        self.name = name or self.path.resolve().name or str(self.path)
        _require_log(self.path)
        self._log = Log(self.path / LOG)

    def read(self) -> Run:
        try:
            history = self._log.read()
        except OSError as error:
            raise UserError(f"{self.path / LOG} cannot be read ({error.strerror})", flag="RUN") from error
        parts: dict[str, dict[str, Any]] = {}
        unreadable = []
        for part, file in _PARTS.items():
            try:
                value = json.loads((self.path / file).read_bytes())
                if not isinstance(value, dict):
                    raise ValueError
                parts[part] = value
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                unreadable.append(file)
        if record := parts.get("record"):
            parts["record"] = _without_secrets(record)
        parts["scores"] = self._scores()
        return Run(
            self.path,
            self.name,
            state_now(parts.get("status", {}), history),
            history,
            unreadable=tuple(unreadable),
            **parts,
        )

    def _scores(self) -> dict[str, Any]:
        """The table of the recipe that this is a training of; what else may lie beside a run is nothing of it."""
        try:
            table = mapping(mapping(json.loads((self.path / _SCORES).read_bytes())).get("table"))
        except (OSError, ValueError):
            return {}
        return table if self.path.resolve().name in listed(table.get("runs")) else {}

    def signature(self) -> str:
        """Changes whenever one of the files does."""
        seen = []
        for file in (LOG, *_PARTS.values(), _SCORES):
            with suppress(OSError):
                about = (self.path / file).stat()
                seen.append(f"{file}:{about.st_ino}:{about.st_size}:{about.st_mtime_ns}")
        return "|".join(seen)


def readers(folders: list[str]) -> list[Reader]:
    """A reader for each run, named by the end of its path that tells it from the others. A folder of a recipe stands
    for its trainings."""
    trainings = [_trainings_in(user_path(folder)) for folder in folders]
    depth = 2 if any(trainings) else 1
    folders = [name for folder, inside in zip(folders, trainings, strict=True) for name in inside or [folder]]
    paths = [user_path(folder).resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path} is named twice; a run is compared with others", flag="RUN")
    while depth < max(len(path.parts) for path in paths) and len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    names = ["/".join(path.parts[-depth:]).lstrip("/") for path in paths]
    return [Reader(folder, name) for folder, name in zip(folders, names, strict=True)]


def read_run(folder: str | Path) -> Run:
    """The run in a folder; see :class:`Reader`."""
    return Reader(str(folder)).read()


def _trainings_in(folder: Path) -> list[str]:
    """The runs in the folder of a recipe that trains several times; none in another."""
    with suppress(OSError, ValueError, AttributeError):
        if json.loads((folder / _PARTS["record"]).read_bytes()).get("command") in _RECIPES:
            logs = folder.glob(f"*/{LOG}")
            return [str(log.parent) for log in sorted(logs, key=lambda log: (len(log.parent.name), log.parent.name))]
    return []


def _require_log(path: Path) -> None:
    flag = "RUN"
    if not path.exists():
        raise UserError(f"no such folder: {path}", flag=flag)
    if not path.is_dir():
        raise UserError(f"{path} is a file; name the folder of a run (the --output_dir of its training)", flag=flag)
    if (path / LOG).is_file():
        return
    text = f"{path} has no log ({LOG}), which every run of lmtrain writes"
    if (path.resolve().parent / LOG).is_file():
        raise UserError(f"{text}; the run is its parent: {path.resolve().parent}", flag=flag)
    inside = sorted(str(log.parent) for log in path.glob(f"*/{LOG}"))
    if inside:
        raise UserError(f"{text}; there are runs inside: {' '.join(inside[:6])}", flag=flag)
    raise UserError(f"{text}; name the --output_dir of a training", flag=flag)


def state_now(status: dict[str, Any], history: History) -> str:
    """What the status file says, or ``"lost"`` where it says that a run is at work of which there is no sign: that
    shows by the clock and by its process, and no file changes."""
    state = str(status.get("state", "unknown"))
    if state not in _AT_WORK:
        return state
    latest = history.latest or 0.0
    updated = status.get("updated")
    if isinstance(updated, int | float):
        latest = max(latest, float(updated))
    pid = status.get("pid")
    return state if time.time() - latest < _RECENT or _is_alive(pid, updated) else "lost"


def _is_alive(pid: Any, updated: Any) -> bool:
    """Whether the process that wrote the status still is: one of its number that is older than what it wrote."""
    if not isinstance(pid, int) or not isinstance(updated, int | float):
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= updated + 1
    except (psutil.Error, ValueError, OverflowError):
        return False


# ---- secrets ------------------------------------------------------------------------------------


def _without_secrets(record: dict[str, Any]) -> dict[str, Any]:
    """``run.json`` holds none; one of another version, or edited by hand, may."""
    shown: dict[str, Any] = scrubbed(record)
    command, options, argv = shown.get("command"), shown.get("options"), shown.get("argv")
    if command in OTHER_COMMANDS or command in TRAINING_COMMANDS:
        flags = flag_table(str(command)).flags
        if isinstance(options, dict):
            secret = {name for name, flag in flags.items() if flag.about.secret}
            shown["options"] = {name: value for name, value in options.items() if name not in secret}
        if isinstance(argv, list):
            shown["argv"] = without_secrets(str(command), [str(word) for word in argv])
    return shown


def scrubbed(value: Any) -> Any:
    """Plain values with whatever looks like a key or a password taken out of their texts."""
    if isinstance(value, str):
        return without_keys(value, {})
    if isinstance(value, dict):
        return {key: scrubbed(item) for key, item in value.items()}
    return [scrubbed(item) for item in value] if isinstance(value, list) else value
