"""The fields of ``transformers.TrainingArguments``, read from its source without importing it.

Importing takes seconds (it brings torch); reading the source takes milliseconds, so that ``--help`` and the
answer to a mistyped flag are there at once.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lmtrain.config.about import About
from lmtrain.config.treatment import TREATMENT
from lmtrain.config.values import Flag
from lmtrain.config.wording import BOUNDS, CHOICES, HELP, METAVARS, MORE_CHOICES, SECRET, TOO_SMALL, UNITS
from lmtrain.core.errors import UserError

_BASIC = {
    "bool": "bool",
    "int": "int",
    "float": "float",
    "str": "str",
    "list": "list",
    "dict": "dict",
    "None": "none",
}


@dataclass(frozen=True)
class SourceField:
    """One field as the source has it. ``types`` as in :class:`Flag`; an enum is "str" with ``choices``."""

    name: str
    types: tuple[str, ...]
    default: Any
    default_source: str
    help: str
    choices: tuple[str, ...]


def package_folder() -> Path:
    """Where the installed transformers lies; it is not imported."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("transformers is not installed in this environment; install lmtrain with its dependencies")
    return Path(next(iter(spec.submodule_search_locations)))


def installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 25 ms that few commands need

    try:
        return version("transformers")
    except PackageNotFoundError:
        return "unknown"


def read_fields(folder: Path) -> list[SourceField]:
    """The public fields of ``TrainingArguments`` in ``folder/training_args.py``, in their order."""
    tree = ast.parse((folder / "training_args.py").read_text(encoding="utf-8"))
    enums = _Enums(folder, tree)
    found = []
    for item in _class(tree, "TrainingArguments").body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            name = item.target.id
            if not name.startswith("_") and not ast.unparse(item.annotation).startswith("ClassVar"):
                found.append(_field(name, item.annotation, item.value, enums))
    return found


@cache
def installed_fields() -> tuple[SourceField, ...]:
    return tuple(read_fields(package_folder()))


@cache
def training_flags() -> dict[str, Flag]:
    """A flag for each field of the installed ``TrainingArguments``, with our default where it differs."""
    flags = {}
    for item in installed_fields():
        treatment = TREATMENT.get(item.name)
        bounds = BOUNDS.get(item.name, {})
        worked_out = item.default is None and item.default_source != "None"
        about = About(
            HELP.get(item.name, item.help),
            metavar=METAVARS.get(item.name, ""),
            unit=UNITS.get(item.name, ""),
            secret=item.name in SECRET,
            shown_default="the library's choice" if worked_out else "",
            at_least=bounds.get("at_least"),
            above=bounds.get("above"),
            at_most=bounds.get("at_most"),
            below=bounds.get("below"),
            too_small=TOO_SMALL.get(item.name, ""),
        )
        default = item.default
        if treatment and treatment.default is not None:
            default = treatment.default
        choices = (item.choices or CHOICES.get(item.name, ())) + MORE_CHOICES.get(item.name, ())
        group = treatment.group if treatment else "Other"
        flags[item.name] = Flag(item.name, item.types, default, about, group, choices, training=True)
    return flags


class _Enums:
    """Values of the string enums that annotations name, looked up in the modules they are imported from."""

    def __init__(self, folder: Path, tree: ast.Module) -> None:
        self._folder = folder
        self._trees = {"training_args": tree}
        self._module: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                self._module.update({alias.asname or alias.name: node.module for alias in node.names})

    def values(self, name: str) -> tuple[str, ...] | None:
        """The values of enum ``name``; None when it is no enum of strings."""
        module = self._module.get(name, "training_args")
        if module not in self._trees:
            path = self._folder / (module.replace(".", "/") + ".py")
            if not path.is_file():
                return None
            self._trees[module] = ast.parse(path.read_text(encoding="utf-8"))
        for node in self._trees[module].body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                values = [
                    item.value.value
                    for item in node.body
                    if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
                ]
                return tuple(v for v in values if isinstance(v, str)) or None
        return None


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise RuntimeError(f"no class {name} in the installed transformers; is its version supported?")


def _members(annotation: ast.expr) -> list[ast.expr]:
    """The members of a union: ``int | None``, ``Optional[int]``, ``Union[int, str]``."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _members(annotation.left) + _members(annotation.right)
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        inner = annotation.slice
        if annotation.value.id == "Optional":
            return [*_members(inner), ast.Constant(None)]
        if annotation.value.id == "Union" and isinstance(inner, ast.Tuple):
            return [part for element in inner.elts for part in _members(element)]
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _members(ast.parse(annotation.value, mode="eval").body)
    return [annotation]


def _types(annotation: ast.expr, enums: _Enums) -> tuple[tuple[str, ...], tuple[str, ...]]:
    types: list[str] = []
    choices: tuple[str, ...] = ()
    for part in _members(annotation):
        base = part.value if isinstance(part, ast.Subscript) else part
        name = ast.unparse(base).rsplit(".", 1)[-1]
        if name in _BASIC:
            types.append(_BASIC[name])
        elif name == "Literal" and isinstance(part, ast.Subscript):
            literals = part.slice.elts if isinstance(part.slice, ast.Tuple) else [part.slice]
            types += [type(item.value).__name__ for item in literals if isinstance(item, ast.Constant)]
        elif name in ("List", "Dict"):
            types.append(name.lower())
        elif (values := enums.values(name)) is not None:
            types.append("str")
            choices = values
        else:
            types.append("object")  # a Python object, which no command line can name
    return tuple(dict.fromkeys(types)), choices


def _field(name: str, annotation: ast.expr, value: ast.expr, enums: _Enums) -> SourceField:
    types, choices = _types(annotation, enums)
    default: ast.expr | None = value
    help = ""
    if isinstance(value, ast.Call):
        keywords = {word.arg: word.value for word in value.keywords}
        default = keywords.get("default", keywords.get("default_factory"))
        metadata = keywords.get("metadata")
        if isinstance(metadata, ast.Dict):
            for key, item in zip(metadata.keys, metadata.values, strict=True):
                named = key.value if isinstance(key, ast.Constant) else None
                if named == "help":
                    help = _text(item)
                elif named == "choices" and isinstance(item, ast.List):
                    choices = tuple(ast.literal_eval(item))
                elif named == "const":
                    types = tuple(dict.fromkeys([*types, "bool"]))  # `nargs="?"`: the flag may stand alone
    source = ast.unparse(default) if default is not None else ""
    try:
        plain = ast.literal_eval(default) if default is not None else None
    except ValueError:
        plain = [] if source == "list" else None  # worked out when the class is made, such as the optimizer
    return SourceField(name, types, plain, source, help, choices)


def _text(node: ast.expr) -> str:
    """A help text: a constant, or constants put together; argparse's doubled per cent signs are undone."""
    try:
        text = str(ast.literal_eval(node))
    except ValueError:
        text = "".join(n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return " ".join(text.replace("%%", "%").split())
