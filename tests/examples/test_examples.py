"""Each example runs as a user would run it, on real text, and leaves what it promises."""

import importlib.util
import re
from pathlib import Path

import pytest
from examples_run import EXAMPLES, environment, run_example
from notebook_run import cells

import forked

SHORT = ("causal_lm.py", "masked_lm.py", "own_dataset.py", "quick_start.py")


@pytest.mark.parametrize("name", SHORT)
def test_it_trains_and_leaves_a_model(name: str, tmp_path: Path) -> None:
    told = run_example(name, "--max_steps", 4, "--output_dir", tmp_path)
    perplexity = re.search(r"perplexity ([\d.]+)", told)
    assert perplexity is not None and 100 < float(perplexity[1]) < 2000, told  # of 1,000 tokens, hardly trained
    model = tmp_path / "run" if name == "quick_start.py" else tmp_path
    assert (model / "model.safetensors").is_file()
    if name == "masked_lm.py":
        assert len(re.findall(r"^ *\d+\.\d\d%  \S", told, re.M)) == 5
    if name == "quick_start.py":  # its cells again: finished
        assert run_example(name, "--max_steps", 4, "--output_dir", tmp_path).startswith(perplexity[0])


def test_ones_own_checkpoint_and_text_take_the_place_of_the_miniatures(tmp_path: Path) -> None:
    import miniature

    checkpoint = miniature.gpt2(tmp_path / "mine")
    text = tmp_path / "mine.txt"
    text.write_text("\n\n".join(miniature.texts()[-6:]), encoding="utf-8")
    for name in ("causal_lm.py", "own_dataset.py"):
        folder = tmp_path / name
        run_example(name, "--model", checkpoint, "--text", text, "--max_steps", 2, "--output_dir", folder)
        assert (folder / "model.safetensors").is_file() and not (folder / "miniature").exists()


@pytest.mark.parametrize("name", SHORT)
def test_it_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= 60


def test_the_quick_start_runs_cell_by_cell(tmp_path: Path) -> None:
    """Nothing it says looks like an error, no bar is drawn over itself, and a cell may be run again."""
    done = forked.run([Path(__file__).with_name("notebook_run.py"), tmp_path], env=environment(), timeout=150)
    assert done.returncode == 0, done.stderr
    assert len(re.findall("perplexity", done.stdout)) >= 2 and "\r" not in done.stdout + done.stderr
    assert "is finished" in done.stdout + done.stderr, "the run that is there is taken"
    assert "Warning" not in done.stderr and "Error" not in done.stderr, done.stderr


def test_the_quick_start_runs_in_a_real_kernel(tmp_path: Path) -> None:
    """The same through Jupyter, where it is installed."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    if importlib.util.find_spec("ipykernel") is None:
        pytest.skip("no kernel to run it in")
    code = cells()
    assert len(code) == 4
    first = f"import os, sys; sys.path.insert(0, {str(EXAMPLES)!r}); os.chdir({str(tmp_path)!r})"
    code = [first, *(cell.replace("default=40", "default=4") for cell in code)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in code])
    client.NotebookClient(notebook, timeout=150).execute()
    streams = [output for cell in notebook.cells for output in cell.outputs if output.output_type == "stream"]
    told = "".join(output.text for output in streams if output.name == "stdout")
    assert "train 4 steps" in told and "perplexity" in told and "\r" not in told
    alarming = [output.text for output in streams if output.name == "stderr"]
    assert not [text for text in alarming if "TqdmWarning" not in text]  # that ipywidgets are not installed
