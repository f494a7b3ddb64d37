"""Processes that meet, compare and fail: run by test_meeting.py, once for several cases."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lmtrain.core.console import silent
from lmtrain.core.errors import UserError
from lmtrain.core.launching import rank
from lmtrain.engine.agreement import differences
from lmtrain.engine.meeting import compared, meet, telling_others, wait_for_all


def main(folder: Path) -> int:
    me, seen = rank(), {}
    meet()
    seen["same"] = compared("facts", "alike", silent)
    seen["again"] = compared("facts", "alike", silent)
    texts = compared("facts", json.dumps({"--seed": str(me % 2), "torch": "2"}), silent)
    seen["differences"] = differences({number: json.loads(text) for number, text in (texts or {}).items()})
    code = 0
    try:
        with telling_others():
            if me == 2:
                raise UserError("no such file: a.txt", flag="--train_file")
            wait_for_all(silent)
    except UserError as error:
        code, seen["error"], seen["heard"] = 2, str(error), error.heard
    seen["left"] = time.monotonic()
    (folder / f"{me}.json").write_text(json.dumps(seen))
    return code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
