"""The garbage collector rests during imports, and works again after them."""

from __future__ import annotations

import gc

import pytest

from lmtrain.cli.startup import heavy_imports


def test_the_collector_rests_and_then_works_again() -> None:
    before = gc.get_freeze_count()
    with heavy_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    gc.unfreeze()


def test_it_works_again_after_a_failed_import() -> None:
    with pytest.raises(ImportError), heavy_imports():
        raise ImportError("no such module")
    assert gc.isenabled()
