"""Parts as tasks of Ray, as typed and where a cluster loses some: the store of one process, to the byte."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from corpora import CODE, byte_level_bpe
from test_preparing_shards import FILES, lines, request_of, texts

from lmtrain.cli.main import main
from lmtrain.core.children import cores
from lmtrain.core.errors import UserError
from lmtrain.core.types import Piece, Source, Tally
from lmtrain.data.preparing import Making, Prepared, Request, prepare
from lmtrain.data.preparing.filling import crew_for
from lmtrain.data.preparing.plan import segments_of
from lmtrain.data.tokenizer_files import TokenizerFiles

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the package ray")
CPUS = cores() + 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray with more processors than this machine has, joined by this process."""
    from lmtrain.data.preparing.on_ray import imported

    ray = imported()
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local", num_cpus=CPUS, num_gpus=0, include_dashboard=False, log_to_driver=False,
            logging_level=logging.ERROR, _node_ip_address="127.0.0.1",
        )  # fmt: skip
    yield ray
    assert ray.is_initialized(), "what was joined is left running"
    ray.shutdown()


def tokens_of(made: Prepared) -> list[bytes]:
    return [(made.store.folder / name).read_bytes() for name in FILES]


def test_the_command_and_its_shards(cluster: Any, tmp_path: Path) -> None:
    tokenizer = byte_level_bpe(tmp_path / "tokenizer")
    (tmp_path / "text").mkdir()
    for number in range(6):
        (tmp_path / "text" / f"{number}.py").write_text(f"# {number}\n" + CODE[number * 500 :])

    def prepared(cache: str, *more: str) -> list[bytes]:
        words = ["prepare", "--train_file", tmp_path / "text", "--tokenizer_name", tokenizer]
        assert main([*map(str, [*words, "--data_cache_dir", tmp_path / cache]), *more]) == 0
        folders = [path for path in (tmp_path / cache / "stores").iterdir() if path.name[0] != "."]
        return [(folder / name).read_bytes() for folder in folders for name in FILES]

    here = prepared("here")
    assert prepared("ray", "--engine", "ray") == here
    assert prepared("shards", "--engine", "ray", "--shard", "0/2") == []
    assert prepared("shards", "--engine", "ray", "--shard", "1/2", "--preprocessing_num_workers", "2") == []
    assert prepared("shards", "--engine", "ray", "--merge", "2") == here


def test_so_many_at_once_as_the_cluster_has_processors(cluster: Any, bpe: TokenizerFiles, tmp_path: Path) -> None:
    lines(tmp_path)
    for workers, right in ((None, CPUS), (2, 2)):
        request = request_of(tmp_path, bpe, documents="lines", making=Making(workers, "ray", segment_bytes=200))
        segments = segments_of(request.sources, None, 200)
        with crew_for(request, segments, "seed") as crew:
            assert crew is not None and crew.workers == right and len(crew.ranges) > 2 * CPUS


@dataclass
class Failures:
    """What befalls the processes that read a text, one after the other: a signal, or an error to raise."""

    folder: Path
    come: list[int | Exception]

    def of(self, source: Source) -> Any:
        """``source``, read with these failures by other processes than this one."""
        folder, come, parent = self.folder, self.come, os.getpid()

        class Mortal:  # inside, so that a worker gets it by its code, and need not find this file
            name = source.name

            def content_hash(self) -> str:
                return source.content_hash()

            def pieces(self, tally: Tally) -> Iterator[Piece]:
                for number, piece in enumerate(source.pieces(tally)):
                    if number == 3 and os.getpid() != parent:  # something is written by then
                        failed = len(list(folder.iterdir()))
                        if failed < len(come):
                            (folder / str(failed)).touch()
                            found = come[failed]
                            if isinstance(found, Exception):
                                raise found
                            os.kill(os.getpid(), found)
                    yield piece

        return Mortal()

    def prepare(self, request: Request, cache: Path) -> Prepared:
        self.folder.mkdir()
        return prepare(replace(request, sources=[self.of(source) for source in request.sources]), cache)


@pytest.fixture
def request_(bpe: TokenizerFiles, tmp_path: Path) -> Request:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "lines.txt").write_text("".join(texts(60)))
    return request_of(tmp_path / "text", bpe, documents="lines", making=Making(engine="ray"))


def test_a_lost_task_is_given_to_another(cluster: Any, request_: Request, tmp_path: Path) -> None:
    """One is killed, one finds no disk; what they had begun is in no store."""
    whole = prepare(replace(request_, making=Making()), tmp_path / "whole")
    failures = Failures(tmp_path / "failed", [signal.SIGKILL, FileNotFoundError("/mnt/corpus")])
    made = failures.prepare(request_, tmp_path / "ray")
    assert len(list(failures.folder.iterdir())) == 2
    assert tokens_of(made) == tokens_of(whole)
    assert {path.name for path in made.store.folder.iterdir()} == {*FILES, "manifest.json"}


def test_one_that_no_machine_can_do_ends_it_in_a_line(cluster: Any, request_: Request, tmp_path: Path) -> None:
    failures = Failures(tmp_path / "failed", [ModuleNotFoundError("No module named 'fastokens'")] * 9)
    with pytest.raises(UserError, match="--engine: a machine of the cluster") as caught:
        failures.prepare(request_, tmp_path / "ray")
    said = r"\([\d.]+\) could not do a task \(ModuleNotFoundError: No module named 'fastokens'\); all of them have to"
    assert re.search(said, str(caught.value))
    assert len(list(failures.folder.iterdir())) == 4
    assert list((tmp_path / "ray" / "stores").iterdir()) == [], "nothing is left"


def test_a_fault_of_the_program_is_none_of_the_cluster(cluster: Any, request_: Request, tmp_path: Path) -> None:
    failures = Failures(tmp_path / "failed", [ZeroDivisionError("a bug")] * 9)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        failures.prepare(request_, tmp_path / "ray")
    assert len(list(failures.folder.iterdir())) == 1
