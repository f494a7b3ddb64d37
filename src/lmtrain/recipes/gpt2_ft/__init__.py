"""``lmtrain gpt2-ft``: the training of microsoft/LoRA's data-to-text example, its arithmetic on our parts."""
