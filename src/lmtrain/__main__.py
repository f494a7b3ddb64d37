"""``python -m lmtrain``, ``torchrun -m lmtrain`` and ``accelerate launch -m lmtrain``."""

from lmtrain.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
