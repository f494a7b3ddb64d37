"""Two processes on gloo end with the same weights as each other to the bit, and as one process up to rounding."""

from pathlib import Path

import torch

from launching import MARKS, launch

pytestmark = MARKS


def test_muon_on_two_processes_is_muon_on_one(tmp_path: Path) -> None:
    for processes, batch in ((1, 4), (2, 2)):
        launch(Path(__file__).with_name("muon_ranks.py"), tmp_path, batch, processes=processes)
    one, left, right = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    for name, expected in one.items():
        assert torch.equal(left[name], right[name]), name
        torch.testing.assert_close(left[name], expected, rtol=0, atol=1e-4, msg=name)
