"""``lmtrain``, ``python -m lmtrain``, ``torchrun -m lmtrain`` and ``accelerate launch -m lmtrain``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run what was typed; Ctrl-C while the first modules are imported is a line too."""
    try:
        from lmtrain.cli import main as command
    except KeyboardInterrupt:
        from lmtrain.core.errors import ExitCode

        print("\nlmtrain: interrupted", file=sys.stderr, flush=True)
        return ExitCode.INTERRUPTED
    return command.main()


if __name__ == "__main__":
    raise SystemExit(main())
