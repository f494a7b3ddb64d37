# %% [markdown]
# # From a text to a language model of one's own
# Open this file as a notebook (VS Code, PyCharm and Spyder do; `jupytext --to ipynb quick_start.py` makes one), or run
# it: `python examples/quick_start.py`. It takes seconds; with a text of your own and more steps, as long as you like.

# %%
import argparse
from pathlib import Path

import lmtrain
import miniature

parser = argparse.ArgumentParser()
parser.add_argument("--text", help="a file or folder; default: Python's language reference")
parser.add_argument("--output_dir", default="runs/quick_start")
parser.add_argument("--max_steps", type=int, default=40)
options, _ = parser.parse_known_args()  # a notebook has arguments of its own
folder = Path(options.output_dir)
text = options.text or miniature.text_files(folder / "text")[0]

# %% [markdown]
# ## A tokenizer, learned from the text

# %%
if not (folder / "tokenizer").exists():
    lmtrain.train_tokenizer(train_file=text, vocab_size=1000, output_dir=folder / "tokenizer")

# %% [markdown]
# ## A model
# Each option of `lmtrain clm --help` is a keyword here. Run this cell again, and it goes on with a run that was
# interrupted, or says that it is finished.

# %%
run = lmtrain.clm(
    model_type="gpt2",
    config_overrides="n_embd=64,n_layer=2,n_head=2,n_positions=64",
    tokenizer_name=folder / "tokenizer",
    train_file=text,
    learning_rate=3e-3,
    per_device_train_batch_size=16,
    max_steps=options.max_steps,
    logging_steps=10,
    output_dir=folder / "run",
)
print(f"perplexity {run.metrics['perplexity']:.1f} on a twentieth of the text, which was held out")

# %% [markdown]
# ## What it writes

# %%
print(lmtrain.complete(run.folder, "The expression", max_new_tokens=20)[0].text)
