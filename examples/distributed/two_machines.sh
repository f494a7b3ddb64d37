#!/bin/sh
# Two machines of eight GPUs each, DDP: the same line on both, in any order; they meet at the first one's address and port.
# Processes that end are started again (--max-restarts), and all go on from the last checkpoint.
# sh two_machines.sh node1:29500   (a name or number of the first machine that the second one reaches)
set -eu
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # each start meets at a place of its own, where nothing of a dead one lies
torchrun --nnodes 2 --nproc_per_node 8 --max-restarts 3 \
    --rdzv_backend c10d --rdzv_id book --rdzv_endpoint "$1" \
    -m lmtrain clm --model_name_or_path ./gpt2 --train_file book.txt --global_batch_size 128 --output_dir runs/book
