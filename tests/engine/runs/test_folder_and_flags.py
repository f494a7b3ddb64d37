"""What a command does with its folder: every state of it against every flag, as docs/checkpoints.md has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmtrain.core.errors import UserError
from lmtrain.engine.runs.found import fingerprint, require_unchanged
from lmtrain.engine.runs.resume import goes_on_with_it, where_to_begin
from lmtrain.engine.runs.run_folder import RunFolder

OPTIONS: dict[str, Any] = {"command": "clm", "learning_rate": 1e-3, "output_dir": "run", "train_file": ["a.txt"]}
ARGV = ["--train_file", "a.txt", "--output_dir", "run"]


def checkpoint(folder: Path, step: int, *, damaged: bool = False) -> Path:
    place = folder / f"checkpoint-{step}"
    (place / "model").mkdir(parents=True)
    (place / "optimizer_0").mkdir()
    if not damaged:
        (place / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return place


def a_run(folder: Path, state: str = "training", steps: tuple[int, ...] = (4, 8), **options: Any) -> None:
    with RunFolder(folder) as run:
        run.describe("clm", ARGV, OPTIONS | options)
        run.status(state, step=9)
    for step in steps:
        checkpoint(folder, step)


def nothing(folder: Path) -> None:
    pass


def somebody_elses(folder: Path) -> None:
    """The stock Trainer's."""
    folder.mkdir()
    (folder / "model.safetensors").write_text("x")
    checkpoint(folder, 4)
    checkpoint(folder, 8)


def another(folder: Path) -> None:
    a_run(folder, learning_rate=0.5)


def unfinished(folder: Path) -> None:
    a_run(folder)


def early(folder: Path) -> None:
    a_run(folder, steps=())


def damaged(folder: Path) -> None:
    a_run(folder, steps=())
    checkpoint(folder, 4, damaged=True)


def finished(folder: Path) -> None:
    a_run(folder, "finished")


def finished_bare(folder: Path) -> None:
    a_run(folder, "finished", steps=())


STATES = (nothing, somebody_elses, another, unfinished, early, damaged, finished, finished_bare)
INSIDE, OUTSIDE, TRUE, NEVER = (
    {"resume_from_checkpoint": value} for value in ("{out}/checkpoint-4", "{tmp}/other/checkpoint-6", "true", "never")
)
OVER, LONGER = {"overwrite_output_dir": True}, {"extend": True, "num_train_epochs": 9.0}

# By flags: what comes of the states, in their order. A number is the step that training begins at, "-" a refusal,
# "done" that it is finished; then the checkpoints that are there when it begins.
TABLE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": ({}, ["0", "-", "-", "8: 4 8", "0", "-", "done: 4 8", "done"]),
    "true": (TRUE, ["0", "-", "-", "8: 4 8", "0", "-", "done: 4 8", "done"]),
    "never": (NEVER, ["0", "-", "-", "0: left-4 left-8", "0", "0: left-4", "done: 4 8", "done"]),
    "inside": (INSIDE, ["-", "-", "-", "4: 4 left-8", "-", "-", "done: 4 8", "done"]),
    "outside": (OUTSIDE, ["6", "-", "-", "6: left-4 left-8", "6", "6: left-4", "done: 4 8", "done"]),
    "overwrite": (OVER, ["0", "0", "0", "0", "0", "0", "0", "0"]),
    "overwrite, true": (OVER | TRUE, ["-"] * 8),
    "overwrite, never": (OVER | NEVER, ["0"] * 8),
    "overwrite, inside": (OVER | INSIDE, ["-", "4: 4", "4: 4", "4: 4", "-", "-", "4: 4", "-"]),
    "overwrite, outside": (OVER | OUTSIDE, ["6"] * 8),
    "extend": (LONGER, ["0", "-", "-", "8: 4 8", "0", "-", "8: 4 8", "-"]),
    "extend, never": (LONGER | NEVER, ["0", "-", "-", "0: left-4 left-8", "0", "0: left-4", "-", "-"]),
    "extend, inside": (LONGER | INSIDE, ["-", "-", "-", "4: 4 left-8", "-", "-", "4: 4 left-8", "-"]),
}  # fmt: skip


def given(flags: dict[str, Any], out: Path) -> tuple[dict[str, Any], list[str]]:
    """Options and words of the command."""
    named = {k: v.format(out=out, tmp=out.parent) if isinstance(v, str) else v for k, v in flags.items()}
    return OPTIONS | named, [*ARGV, *(f"--{name}={value}" for name, value in named.items())]


def begin(out: Path, flags: dict[str, Any], *, launched_before: bool = False) -> str:
    """What the command does, in the words of the table; a folder that it begins in is begun in."""
    options, argv = given(flags, out)
    before = fingerprint(out)
    try:
        found = where_to_begin(out, "clm", options, argv, again=launched_before)
    except UserError:
        assert fingerprint(out) == before
        return "-"
    assert fingerprint(out) == before, "looking changes nothing"
    if found.state != "finished":
        if found.checkpoint is None:
            assert found.step == 0 and (found.state == "new") == (not goes_on_with_it(found))
        with RunFolder(out, overwrite=found.overwrites, keep=found.checkpoint, set_aside=found.set_aside) as run:
            run.describe("clm", argv, options)
            run.status("training", step=found.step)
    names = sorted(entry.name.replace("checkpoint-", "") for entry in out.glob("*checkpoint-*"))
    what = "done" if found.state == "finished" else str(found.step)
    return f"{what}: {' '.join(names)}" if names else what


@pytest.mark.parametrize("name", TABLE)
def test_every_state_of_the_folder(name: str, tmp_path: Path) -> None:
    flags, expected = TABLE[name]
    came = []
    for make in STATES:
        out = tmp_path / make.__name__ / "run"
        out.parent.mkdir()
        checkpoint(out.parent / "other", 6)
        make(out)
        came.append(begin(out, flags))
        assert (out.parent / "other" / "checkpoint-6").is_dir()
    assert dict(zip([make.__name__ for make in STATES], came, strict=True)) == dict(
        zip([make.__name__ for make in STATES], expected, strict=True)
    )


@pytest.mark.parametrize("launched_before", [False, True], ids=["queued again", "by torchrun"])
@pytest.mark.parametrize("name", [name for name, (_, came) in TABLE.items() if came[3] not in ("-", "done")])
def test_the_very_command_goes_on_from_what_it_has_made(name: str, launched_before: bool, tmp_path: Path) -> None:
    """Whatever it did when it began: interrupted before its first checkpoint, and after it."""
    flags, expected = TABLE[name]
    out = tmp_path / "run"
    checkpoint(tmp_path / "other", 6)
    unfinished(out)
    first = begin(out, flags)
    assert first == expected[3]
    assert begin(out, flags, launched_before=launched_before) == first, "nothing new yet"
    checkpoint(out, 9)
    again = begin(out, flags, launched_before=launched_before)
    assert again.startswith("9: ") and {*again.split()} == {*f"9: {first.partition(':')[2]} 9".split()}
    for state in out.glob("checkpoint-?/trainer_state.json"):
        state.unlink()
    came = begin(out, flags, launched_before=launched_before)
    named_elsewhere = flags.get("resume_from_checkpoint") == OUTSIDE["resume_from_checkpoint"]
    assert came.startswith("6: ") if named_elsewhere else came == "-", "it never starts over silently"


def test_another_command_begins_anew_as_its_flags_say(tmp_path: Path) -> None:
    """A flag more is another command; so is the first one once it has ended."""
    out = tmp_path / "run"
    unfinished(out)
    assert begin(out, OVER) == "0"
    checkpoint(out, 3)
    assert begin(out, OVER) == "3: 3"
    assert begin(out, OVER | NEVER) == "0"
    checkpoint(out, 3)
    assert begin(out, OVER | {"logging_steps": 1}) == "0"
    checkpoint(out, 3)
    with RunFolder(out) as run:
        run.status("finished", step=3)
    assert begin(out, OVER | {"logging_steps": 1}) == "0"
    assert not where_to_begin(out, "clm", *given(OVER | {"logging_steps": 1}, out)).overwrites
    assert where_to_begin(out, "clm", given(OVER | {"logging_steps": 1}, out)[0], ["another", "line"]).overwrites


def test_it_says_what_it_does_otherwise_than_the_flags(tmp_path: Path) -> None:
    out = tmp_path / "run"
    unfinished(out)
    lines = where_to_begin(out, "clm", *given(INSIDE, out)).lines
    assert "checkpoint-8: of the training that is left here" in lines[0]
    for flags, said in ((OVER, "--overwrite_output_dir: this command began"), (INSIDE, "has come further since")):
        options, argv = given(flags, out)
        with RunFolder(out) as run:
            run.describe("clm", argv, options)
        assert said in where_to_begin(out, "clm", options, argv).lines[0]
    with RunFolder(out) as run:
        run.status("finished", step=8)
    assert "the run is finished" in where_to_begin(out, "clm", *given(INSIDE, out)).lines[0]


def test_what_was_set_aside_gets_a_free_name_and_goes_when_all_goes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    unfinished(out)
    assert begin(out, INSIDE) == "4: 4 left-8"
    checkpoint(out, 8)
    assert begin(out, NEVER) == "0: left-4 left-8 left2-8"
    back = {"resume_from_checkpoint": "{out}/left-checkpoint-8"}
    assert begin(out, back) == "8: left-4 left-8 left2-8"
    assert begin(out, OVER | back) == "8: left-8", "but for the one that is named"
    assert begin(out, OVER) == "0"


def test_a_folder_that_another_command_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    """One that prepared for longer found nothing there, and would train over a run that has begun and ended since."""
    out = tmp_path / "run"
    options, argv = given(OVER, out)
    for change in (unfinished, lambda out: checkpoint(out, 9), lambda out: a_run(out, "finished", ())):
        found = where_to_begin(out, "clm", options, argv)
        change(out)
        before = fingerprint(out)
        with (
            pytest.raises(UserError, match="another command has worked on the run"),
            RunFolder(out, overwrite=True, still=lambda seen=found.seen: require_unchanged(out, seen)),
        ):
            raise AssertionError("it is held")
        assert fingerprint(out) == before
    found = where_to_begin(out, "clm", options, argv)
    with RunFolder(out, overwrite=True, still=lambda: require_unchanged(out, found.seen)):
        assert not (out / "run.json").exists()


def test_a_removal_that_is_cut_short_leaves_nobodys_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    options, argv = given(OVER, out)
    finished(out)
    with RunFolder(out) as run:
        run.describe("clm", argv, options)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmtrain.engine.runs.run_folder.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt), RunFolder(out, overwrite=True):
        pass
    monkeypatch.undo()
    found = where_to_begin(out, "clm", options, argv)
    assert found.overwrites and found.checkpoint is None, "and is not gone on with from an old checkpoint"
