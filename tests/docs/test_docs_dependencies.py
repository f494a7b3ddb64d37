"""What is imported is declared, and what is declared stands in docs/dependencies.md with its reason."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

from documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
NAMED_OTHERWISE = {"yaml": "pyyaml"}
TAKEN_WHERE_IT_IS = {"liger-kernel", "wandb"}  # that the user installs, and that nothing needs
FOR_DEVELOPERS = {"docs", "test", "dev"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", requirement)[0].lower() for requirement in requirements}


DEPENDENCIES = names(PROJECT["dependencies"])
EXTRAS = {extra: names(packages) for extra, packages in PROJECT["optional-dependencies"].items()}


def imported() -> set[str]:
    """The packages that the code imports, by the names under which they are installed."""
    found = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    others = found - sys.stdlib_module_names - {"lmtrain"}
    return {NAMED_OTHERWISE.get(name, name.replace("_", "-")) for name in others}


def test_what_is_imported_is_declared() -> None:
    users = set().union(*(packages for extra, packages in EXTRAS.items() if extra not in FOR_DEVELOPERS))
    assert imported() - TAKEN_WHERE_IT_IS <= DEPENDENCIES | users
    assert imported() >= DEPENDENCIES, "and what is declared is imported"


def test_the_page_has_a_line_for_each() -> None:
    first, _, second = PAGE.partition("\nExtras")
    assert set(re.findall(r"^\| ([a-z-]+) \|", first, flags=re.M)) - {"package"} == DEPENDENCIES
    rows = set(re.findall(r"^\| `(\w+)` \| ([a-z0-9-]+) \|", second, flags=re.M))
    assert rows == {(extra, each) for extra, all_ in EXTRAS.items() if extra not in {"test", "dev"} for each in all_}


def test_the_readme_lists_the_extras() -> None:
    (listed,) = re.findall(r"# extras: (.*)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert listed.split(", ") == sorted(EXTRAS.keys() - FOR_DEVELOPERS)
