"""The docs hang together: links, navigation, option names, and (``make docs-test``) the site itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import ROOT, anchors, links, pages

from lmtrain.config.commands import OTHER_COMMANDS, TRAINING_COMMANDS
from lmtrain.config.flags import flag_table
from lmtrain.config.legacy import LEGACY, TWINS

DOCS = ROOT / "docs"
TABLES = [flag_table(command) for command in (*TRAINING_COMMANDS, *OTHER_COMMANDS)]
# Options of other programs that the pages speak of.
OTHERS = {
    "max_restarts", "rdzv_endpoint", "rdzv_id", "rdzv_conf", "local_addr",
    "nproc_per_node", "num_processes", "cpu", "multi_gpu", "repeats", "memory", "no_curve", "repo_type", "local_dir",
    "steps", "first_steps", "help", "config", "shape", "index_url",
}  # fmt: skip


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    def names(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        below = entry.values() if isinstance(entry, dict) else entry
        return [name for part in below for name in names(part)]  # type: ignore[union-attr]

    listed = names(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))


def exists(name: str) -> bool:
    name = name.replace("-", "_")
    found = any(table.find(name) for table in TABLES)
    return found or name in LEGACY or name in TWINS or name in OTHERS


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_options_that_a_page_names_exist(page: Path) -> None:
    text = re.sub(r"<!--.*?-->\n+```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"`gpt2_\w+\.py [^`]*`", "", text)  # another program's
    named = re.findall(r"(?<![\w-])--([a-z][a-z0-9_-]*)(?!\w)", text)
    assert [name for name in named if not exists(name)] == []


def test_old_names_are_taken_as_the_page_says() -> None:
    rows = re.findall(r"^\| `--(\w+).*?` .*?\| taken as `--(\w+)", (DOCS / "coming_from.md").read_text(), flags=re.M)
    assert len(rows) > 5
    for old, new in rows:
        found = next((found for table in TABLES if (found := table.find(old))), None)
        assert new == (found[0].name if found else LEGACY[old].new), old


def test_old_names_are_refused_as_the_page_says() -> None:
    rows = re.findall(r"^\| [^|]*?`--(\w+)[^|]*\| refused", (DOCS / "coming_from.md").read_text(), flags=re.M)
    assert len(rows) >= 4
    assert [old for old in rows if not LEGACY[old].refused] == []


def test_figures_load_nothing() -> None:
    for figure in DOCS.glob("figures/*.svg"):
        text = figure.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "<title>" in text and "http" not in text and "<script" not in text


@pytest.mark.skipif(os.environ.get("LMTRAIN_DOCS") != "all", reason="in `make docs-test`")
def test_the_site_is_built_without_a_warning_and_loads_nothing(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    made = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert made.returncode == 0, made.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", page.read_text(encoding="utf-8"))
        loaded += re.findall(
            r"<link[^>]+rel=\"stylesheet\"[^>]+href=\"(https?:[^\"]+)", page.read_text(encoding="utf-8")
        )
        assert loaded == [], page
