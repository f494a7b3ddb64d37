"""The trainer as a library: one's own data, order, resuming, evaluation, and the traps it closes."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import IterableDataset
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
)

from lmtrain.core.errors import UserError
from lmtrain.core.streams import permutation
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal, Labelled, Masked
from tiny import VOCABULARY, MemoryLayout, arguments, bert, gpt2, llama, logged, rows, try_fast_paths

EOS = 0
MASKED = Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4), probability=0.3)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<eos>": EOS, **{f"w{i}": i for i in range(1, VOCABULARY - 1)}, "<mask>": VOCABULARY - 1}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>", mask_token="<mask>")


# ---- what is learned -----------------------------------------------------------------------------


def endings(kind: type[Trainer], tokenizer: PreTrainedTokenizerFast, folder: Path) -> tuple[int, int]:
    """Over-fit on ten short documents with the stock collator and pad = eos; how many greedy outputs end."""
    documents = [
        [10 + i, *rows(1, shortest=1 + i % 4, longest=1 + i % 4, first_id=30, seed=i)[0], EOS] for i in range(10)
    ]
    model = llama()
    args = arguments(folder, max_steps=60, per_device_train_batch_size=10, learning_rate=1e-2, logging_steps=60)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    data: Any = [{"input_ids": document} for document in documents]
    kind(model=model, args=args, train_dataset=data, data_collator=collator).train()
    ended = exact = 0
    for document in documents:
        output = model.generate(
            torch.tensor([document[:1]]),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )[0].tolist()
        ended += output[-1] == EOS
        exact += output == document
    return ended, exact


def test_a_model_over_fitted_on_short_documents_ends_them(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    assert endings(LMTrainer, tokenizer, tmp_path) == (10, 10)
    assert endings(Trainer, tokenizer, tmp_path)[0] == 0  # the complaint this answers: it never stops


# ---- the order of examples -----------------------------------------------------------------------


def test_the_order_is_a_function_of_seed_and_epoch(tmp_path: Path) -> None:
    layout = MemoryLayout(rows(10))
    trainer = LMTrainer(llama(), arguments(tmp_path, num_train_epochs=3, seed=7), layout, objective=Causal())
    try_fast_paths(trainer).train()
    assert layout.reads == [i for epoch in range(3) for i in permutation(7, epoch, 10).tolist()]


def test_ones_own_data_set_has_the_same_order(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    class Watched(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.data, self.reads = rows(10), list[int]()

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> dict[str, list[int]]:
            self.reads.append(index)
            return {"input_ids": self.data[index]}

    expected = [i for epoch in range(2) for i in permutation(7, epoch, 10).tolist()]
    for collator in (None, DataCollatorForLanguageModeling(tokenizer, mlm=False)):
        data = Watched()
        args = arguments(tmp_path, num_train_epochs=2, seed=7)
        try_fast_paths(LMTrainer(llama(), args, data, data_collator=collator)).train()
        assert data.reads == expected


def test_workers_and_their_number_change_nothing(tmp_path: Path) -> None:
    losses = []
    for workers in (0, 2):
        args = arguments(tmp_path, num_train_epochs=2, per_device_train_batch_size=4, dataloader_num_workers=workers)
        trainer = LMTrainer(bert(), args, MemoryLayout(rows(10)), objective=MASKED)
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == losses[1]


def test_masks_differ_from_epoch_to_epoch_and_not_from_run_to_run(tmp_path: Path) -> None:
    def losses(seed: int) -> list[float]:
        """Of four epochs over one batch, with weights that stay as they are."""
        args = arguments(tmp_path, num_train_epochs=4, per_device_train_batch_size=10, learning_rate=0.0)
        objective = Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4), seed=seed)
        trainer = LMTrainer(bert(), args, MemoryLayout(rows(10)), objective=objective)
        trainer.train()
        return logged(trainer, "loss")

    assert len(set(losses(1))) == 4
    assert losses(1) == losses(1)
    assert set(losses(1)).isdisjoint(losses(2))


def test_an_order_drawn_from_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--train_sampling_strategy"):
        LMTrainer(llama(), arguments(tmp_path, train_sampling_strategy="group_by_length"), MemoryLayout(rows(4)))


# ---- one's own data ------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __init__(self, data: list[list[int]]) -> None:
        self.data = data

    def __iter__(self):
        return ({"input_ids": row} for row in self.data)


def test_every_kind_of_data_set_trains_alike(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """In one order, since an iterable data set has its own; the hub's has a column that we do not know."""
    data = rows(8)
    kinds: dict[str, Any] = {
        "layout": MemoryLayout(data),
        "lists": [{"input_ids": row} for row in data],
        "tensors of shape (1, T)": [{"input_ids": torch.tensor([row])} for row in data],
        "ids alone": data,
        "datasets": datasets.Dataset.from_dict({"input_ids": data, "title": ["x"] * 8}),
        "iterable": Stream(data),
    }
    found = {}
    for name, kind in kinds.items():
        args = arguments(tmp_path, max_steps=4, per_device_train_batch_size=2, train_sampling_strategy="sequential")
        trainer = LMTrainer(llama(), args, kind, kind, processing_class=tokenizer)
        trainer.train()
        found[name] = (*logged(trainer, "loss"), trainer.evaluate()["eval_loss"])
    for name, figures in found.items():
        assert figures == pytest.approx(found["layout"], rel=1e-6), name


def test_stock_collators_work_in_both_directions(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"input_ids": rows(8), "attention_mask": [[1] * len(r) for r in rows(8)]})
    for make, mlm in ((llama, False), (bert, True)):
        torch.manual_seed(0)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=mlm, mlm_probability=0.5)
        args = arguments(tmp_path, max_steps=2, per_device_train_batch_size=4)
        trainer = LMTrainer(make(), args, data, data, data_collator=collator)
        assert isinstance(trainer.objective, Labelled) and trainer.objective.shifted is not mlm
        trainer.train()
        metrics = trainer.evaluate()
        assert 0 < metrics["eval_loss"] < 20
        if not mlm:
            assert metrics["eval_tokens"] == sum(len(row) - 1 for row in rows(8))


def test_the_objective_follows_from_the_model(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    args = arguments(tmp_path)
    assert isinstance(LMTrainer(gpt2(), args).objective, Causal)
    masked = LMTrainer(bert(), args, processing_class=tokenizer).objective
    assert isinstance(masked, Masked) and masked.mask_id == VOCABULARY - 1
    with pytest.raises(UserError, match="processing_class=tokenizer"):
        LMTrainer(bert(), args)
    classifier = BertForSequenceClassification(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    )
    with pytest.raises(UserError, match="BertForSequenceClassification is known as neither"):
        LMTrainer(classifier, args)
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": VOCABULARY}
    bart = BartForConditionalGeneration(BartConfig(**small))  # which is listed among the masked ones
    with pytest.raises(UserError, match=r"has an encoder and a decoder.* Seq2SeqTrainer trains both"):
        LMTrainer(bart, args, processing_class=tokenizer)


def test_masks_need_numbered_examples(tmp_path: Path) -> None:
    trainer = LMTrainer(bert(), arguments(tmp_path, max_steps=1), Stream(rows(4)), objective=MASKED)
    with pytest.raises(UserError, match="does not number its examples"):
        trainer.train()


def test_real_tokens_are_counted_and_callbacks_see_them(tmp_path: Path) -> None:
    """Also where it is a callback that asks for the log line and the checkpoint."""
    seen: list[int] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **_) -> None:
            control.should_log = control.should_save = True

        def on_log(self, args, state, control, logs=None, **_) -> None:
            if "loss" in (logs or {}):
                seen.append(state.num_input_tokens_seen)

    data = rows(8)
    args = arguments(tmp_path, num_train_epochs=1, per_device_train_batch_size=4, logging_steps=100)
    trainer = LMTrainer(llama(), args, MemoryLayout(data, width=30), callbacks=[Watch()])
    trainer.train()
    order = permutation(args.seed, 0, 8)
    assert seen == np.cumsum([sum(len(data[i]) for i in part) for part in (order[:4], order[4:])]).tolist()
    assert all(speed > 0 for speed in logged(trainer, "tokens_per_second"))
    saved = [json.loads((tmp_path / f"checkpoint-{step}" / "trainer_state.json").read_text()) for step in (1, 2)]
    assert [state["num_input_tokens_seen"] for state in saved] == seen


# ---- evaluation ----------------------------------------------------------------------------------


def test_bits_per_byte_for_causal_models_whose_text_is_known(tmp_path: Path) -> None:
    layout = MemoryLayout(rows(6), n_bytes=321)
    metrics = LMTrainer(llama(), arguments(tmp_path), eval_dataset=layout).evaluate()
    expected = metrics["eval_loss"] / math.log(2) * layout.n_tokens / 321
    assert metrics["eval_bits_per_byte"] == pytest.approx(expected)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(metrics["eval_loss"]))
    masked = LMTrainer(bert(), arguments(tmp_path), eval_dataset=layout, objective=MASKED).evaluate()
    assert "eval_bits_per_byte" not in masked


def test_several_data_sets_are_evaluated_by_name(tmp_path: Path) -> None:
    parts: Any = {"short": MemoryLayout(rows(3, longest=5)), "long": MemoryLayout(rows(3, shortest=9))}
    metrics = LMTrainer(llama(), arguments(tmp_path), eval_dataset=parts).evaluate()
    alone = LMTrainer(llama(), arguments(tmp_path), eval_dataset=parts["long"]).evaluate()
    assert metrics["eval_long_loss"] == alone["eval_loss"]
    assert metrics["eval_short_tokens"] == sum(len(row) - 1 for row in parts["short"].data)


def test_smoothing_is_for_training_alone(tmp_path: Path) -> None:
    layout, losses = MemoryLayout(rows(5), width=12), {}
    for smoothing in (0.0, 0.3):
        trainer = LMTrainer(llama(), arguments(tmp_path, label_smoothing_factor=smoothing))
        predicted = trainer.predict(layout).metrics
        assert predicted is not None
        losses[smoothing] = (trainer.evaluate(layout)["eval_loss"], predicted["test_loss"])
    assert losses[0.0] == losses[0.3]


def test_compute_metrics_takes_the_stock_path_and_says_what_it_costs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shapes = []

    def metrics(prediction: Any) -> dict[str, float]:
        shapes.append(prediction.predictions.shape)
        return {"mine": 1.5}

    layout = MemoryLayout(rows(7, shortest=4), width=12)
    plain = LMTrainer(llama(), arguments(tmp_path), eval_dataset=layout).evaluate()
    args = arguments(tmp_path, per_device_eval_batch_size=2)
    with caplog.at_level(logging.WARNING):
        found = LMTrainer(llama(), args, eval_dataset=layout, compute_metrics=metrics).evaluate()
    assert found["eval_mine"] == 1.5 and shapes == [(7, 12, VOCABULARY)]
    for name in ("loss", "perplexity", "accuracy", "tokens"):
        assert found[f"eval_{name}"] == pytest.approx(plain[f"eval_{name}"], rel=1e-6)
    assert f"7 examples × 12 positions × {VOCABULARY} ids × 4 bytes" in caplog.text


def test_predict_gives_logits(tmp_path: Path) -> None:
    layout = MemoryLayout(rows(5), width=12)
    output = LMTrainer(llama(), arguments(tmp_path)).predict(layout)
    assert output.predictions.shape == (5, 12, VOCABULARY)
    assert output.metrics is not None and output.metrics["test_tokens"] == sum(len(r) - 1 for r in layout.data)


def test_evaluation_before_training_leaves_the_model_to_be_prepared(tmp_path: Path) -> None:
    layout = MemoryLayout(rows(5), width=12)
    trainer = LMTrainer(llama(), arguments(tmp_path, bf16=True, max_steps=1), layout, layout)
    trainer.evaluate()
    trainer.predict(layout)
    assert not getattr(trainer.model, "_is_accelerate_prepared", False)
    assert "forward" not in vars(trainer.model) or not hasattr(trainer.model.forward, "__wrapped__")
    trainer.train()
    assert trainer.model._is_accelerate_prepared


# ---- traps ---------------------------------------------------------------------------------------


def test_a_model_with_weights_that_are_no_numbers_is_not_trained(tmp_path: Path) -> None:
    model = llama()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = math.nan
    trainer = LMTrainer(model, arguments(tmp_path, max_steps=2), MemoryLayout(rows(4)))
    with pytest.raises(UserError, match=r"--model_name_or_path: .* holds weights that are no numbers"):
        trainer.train()


def test_several_gpus_without_a_launcher_are_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = arguments(tmp_path, per_device_train_batch_size=2, max_steps=1)
    args._n_gpu = 4  # what TrainingArguments finds on a machine with four
    with caplog.at_level(logging.WARNING):
        trainer = LMTrainer(llama(), args, MemoryLayout(rows(4)))
    assert "torchrun --nproc_per_node 4" in caplog.text
    assert args.train_batch_size == 2
    trainer.train()
    assert not isinstance(trainer.model_wrapped, torch.nn.DataParallel)


def test_a_second_trainer_of_a_model_finds_it_as_it_was(tmp_path: Path) -> None:
    """What the first chose must not be taken for the model's own: it is written down, and done again on resuming."""
    model, data = gpt2(), MemoryLayout(rows(8))
    args = arguments(tmp_path, per_device_train_batch_size=2)
    first, second = (LMTrainer(model, args, data).fast_paths.decisions for _ in range(2))
    assert first == second and first["activations"]["choice"] == "fused"
    as_it_was = {**first, "activations": {"choice": "as they are"}}
    third = LMTrainer(model, args, data, decided=as_it_was)
    assert third.fast_paths.decisions == as_it_was
    assert "NewGELUActivation" in {type(module).__name__ for module in model.modules()}


def test_z_loss_is_of_training_alone(tmp_path: Path) -> None:
    data, losses = MemoryLayout(rows(8)), {}
    for z_loss in (0.0, 0.1):
        for packing in (True, False):
            args = arguments(tmp_path, max_steps=2, per_device_train_batch_size=8)
            trainer = LMTrainer(llama(), args, data, data, z_loss=z_loss, packing=packing)
            before = trainer.evaluate()["eval_loss"]
            trainer.train()
            losses[z_loss, packing] = before, *logged(trainer, "loss")
        assert losses[z_loss, True] == pytest.approx(losses[z_loss, False], rel=1e-5)
    plain, pulled = losses[0.0, True], losses[0.1, True]
    assert pulled[0] == plain[0]
    model, squares = llama(), []
    for row in data.data:
        logits = model(torch.tensor([row])).logits[0, :-1]
        squares += logits.logsumexp(-1).square().tolist()
    assert pulled[1] - plain[1] == pytest.approx(0.1 * sum(squares) / len(squares), rel=1e-4)


def test_another_z_loss_is_another_training(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    LMTrainer(llama(), arguments(tmp_path, **options), MemoryLayout(rows(8)), z_loss=0.1).train()
    resumed = LMTrainer(llama(), arguments(tmp_path, **options), MemoryLayout(rows(8)))
    with pytest.raises(UserError, match=r"z_loss: 0\.1, now 0\.0"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_compute_loss_for_ones_own_use_is_a_mean(tmp_path: Path) -> None:
    trainer = LMTrainer(llama(), arguments(tmp_path), MemoryLayout(rows(4)))
    batch = next(iter(trainer.get_train_dataloader()))
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(
        trainer.model(**batch).loss.item(), rel=1e-6
    )
    with pytest.raises(UserError, match="no labels"):
        trainer.compute_loss(trainer.model, {"input_ids": batch["input_ids"]})


def test_a_class_with_a_loss_of_its_own_says_what_it_divides_by(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mean, as people write it: of micro-batches of one size their mean is that of the step."""

    class Mean(LMTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            return super().compute_loss(model, inputs, return_outputs)

    class Said(Mean):
        loss_is_scaled_for_ga = False

    found = {}
    for kind, divided in ((LMTrainer, 1), (LMTrainer, 3), (Mean, 1), (Mean, 3), (Said, 3)):
        args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=6 // divided,
                         gradient_accumulation_steps=divided)  # fmt: skip
        trainer = kind(llama(), args, MemoryLayout(rows(6, shortest=8, longest=8)))
        caplog.clear()
        trainer.train()
        found[kind.__name__, divided] = logged(trainer, "loss") + logged(trainer, "grad_norm")
        warned = "compute_loss of Mean has to divide by num_items_in_batch" in caplog.text
        assert warned is ((kind, divided) == (Mean, 3))
    right = found.pop(("LMTrainer", 1))
    assert found.pop(("Mean", 3)) == pytest.approx([3 * figure for figure in right], rel=1e-5), "as the library has it"
    assert all(figures == pytest.approx(right, rel=1e-5) for figures in found.values())


def test_a_loss_function_of_the_users_is_taken(tmp_path: Path) -> None:
    counts = []

    def mine(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        counts.append(int(num_items_in_batch))
        return outputs["logits"].square().sum() / num_items_in_batch

    data = rows(4)
    args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    trainer = LMTrainer(llama(), args, MemoryLayout(data), compute_loss_func=mine)
    trainer.train()
    assert counts == [sum(len(row) - 1 for row in data)] * 2
