from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for little_run and launched


@pytest.fixture
def nobody_is_left() -> Iterator[None]:
    """Whatever a test started by :func:`launched.agent` ends with it."""
    from launched import end_all

    yield
    end_all()


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a text and in ``straight`` what two undisturbed processes made of them."""
    from launched import agent, end_all, little_world, said

    folder = little_world(tmp_path_factory.mktemp("launched"))
    try:
        assert agent(folder, "straight").wait(300) == 0, said(folder, "straight")
    finally:
        end_all()
    return folder
