"""The command on a process that soon gives a silent storage up: ``remote_ranks.py SECONDS clm ...``."""

from __future__ import annotations

import sys

from lmtrain.cli.main import main
from lmtrain.data.remote import retrying

if __name__ == "__main__":
    retrying.PATIENCE = float(sys.argv[1])  # type: ignore[misc]
    raise SystemExit(main(sys.argv[2:]))
