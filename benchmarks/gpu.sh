#!/usr/bin/env bash
# The comparisons that want a GPU: GPT-2 small and medium from scratch and a Llama-shaped model of a billion parameters,
# bf16, against the stock Trainer plain and compiled; LoRA on GPT-2 small and medium against stock PEFT. One JSON a shape.
#
#     benchmarks/gpu.sh [FOLDER]            (default: benchmarks/gpu)
#
# Not run on a GPU so far.
# Each takes some minutes. It uses the GPU that PyTorch sees first (CUDA_VISIBLE_DEVICES chooses another).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=${1:-benchmarks/gpu}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: PyTorch sees no CUDA device here; the CPU has 'make bench'" >&2
    exit 2
fi

mkdir -p "$out"
missed=0
for shape in gpu-gpt2 gpu-gpt2-medium gpu-llama-1b; do
    echo "== $shape" >&2
    "$python" benchmarks/causal.py --shape "$shape" --repeats "${REPEATS:-3}" --no-curve --json "$out/$shape.json" ||
        missed=1
done
for shape in gpu-gpt2 gpu-gpt2-medium; do
    echo "== LoRA, $shape" >&2
    "$python" benchmarks/data_to_text.py --shape "$shape" --repeats "${REPEATS:-3}" --no-curve --json "$out/lora-$shape.json" ||
        missed=1
done
exit "$missed"
