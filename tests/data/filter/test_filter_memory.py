"""Memory does not grow with the corpus."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from filter_corpora import KEYWORDS, as_jsonl, code

PEAK = """
import sys
from pathlib import Path
from lmtrain.cli.main import main
assert main(sys.argv[1:]) == 0
rows = Path("/proc/self/status").read_text().splitlines()
print(next(int(row.split()[1]) for row in rows if row.startswith("VmHWM")) // 1024)
"""


@pytest.fixture(scope="module")
def part() -> bytes:
    return as_jsonl(code(20_000, words=120))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux' /proc")
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_ten_times_the_corpus_takes_the_same_memory(part: bytes, tmp_path: Path, name: str) -> None:
    peaks = []
    for times in (1, 10):
        source = tmp_path / f"{times}-{name}"
        data = gzip.compress(part, 1) if name.endswith(".gz") else part
        with source.open("wb") as stream:
            for _ in range(times):
                stream.write(data)
        words = ["filter", "--source", str(source), "--text_column", "content", "--keep_any", ",".join(KEYWORDS),
                 "--output", str(tmp_path / f"out{times}"), "--num_proc", "1", "--shard_bytes", "5000000"]  # fmt: skip
        done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]))
    assert len(part) > 15_000_000
    assert peaks[1] - peaks[0] < 40 and peaks[1] < 400, f"{peaks} MB"
