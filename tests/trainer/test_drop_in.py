"""What transformers' Trainer takes and does, this one takes and does too."""

import copy
from contextlib import nullcontext

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import PeftModel
from torch.overrides import _get_current_function_mode_stack
from torch.utils.data import WeightedRandomSampler
from toy import model, model_without_dropout, rows, sampled, trained, trainer, weights
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorWithPadding,
    HfArgumentParser,
    TrainerCallback,
    TrainingArguments,
)

from clear_peft.cpu import FasterCPU
from clear_peft.errors import ClearWarning, InputError
from clear_peft.label_quality import fit_linear_head
from clear_peft.losses import cross_entropy
from clear_peft.trainer import CleaRConfig, CleaRTrainer, Phase
from clear_peft.trainer.weights import EMA
from stand_in_hub import is_private
from tiny_models import tiny

RECIPE = {
    "gradient_accumulation_steps": 1,
    "warm_up_epochs": 0.2,
    "restart": True,
    "probe_init": True,
    "ema_epochs": 1.4,
    "reestimate_every_epoch": False,
    "label_estimator": "probe",
    "noise_threshold": 0.0,
}


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def ragged(size=12):
    """Texts of falling and rising length."""
    table = rows(size).to_dict()
    lengths = [6 - i * 5 % 4 for i in range(size)]
    cut = {
        n: [v[:k] for v, k in zip(table[n], lengths, strict=True)] for n in ("input_ids", "attention_mask")
    }
    return Dataset.from_dict(table | cut)


def padded(features):
    """A collator as one writes it by hand."""
    longest = max(len(f["input_ids"]) for f in features)
    columns = {
        n: [f[n] + [0] * (longest - len(f[n])) for f in features] for n in ("input_ids", "attention_mask")
    }
    return {n: torch.tensor(v) for n, v in (columns | {"labels": [f["labels"] for f in features]}).items()}


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_predictions_are_in_the_order_of_the_rows(tmp_path, strategy):
    made = trainer(tmp_path, train_sampling_strategy=strategy)
    made.data_collator.collate = padded
    together = made.predict(ragged())
    assert together.label_ids.tolist() == ragged()["labels"][:]
    for i, row in enumerate(together.predictions):
        (alone,) = made.predict(ragged().select([i])).predictions
        np.testing.assert_allclose(row, alone, rtol=1e-4, atol=1e-5)


def test_predictions_of_every_shape_come_in_their_order(tmp_path):
    def both(logits, labels):
        return {"logits": logits, "twice": (2 * logits, logits.argmax(-1))}

    settings = {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 5}
    made = trainer(tmp_path, **settings)
    made.data_collator.collate, made.preprocess_logits_for_metrics = padded, both
    found = made.predict(ragged()).predictions
    plain = trainer(tmp_path, **settings)
    plain.data_collator.collate = padded
    logits = plain.predict(ragged()).predictions
    np.testing.assert_array_equal(found["logits"], logits)
    np.testing.assert_array_equal(found["twice"][1], logits.argmax(-1))
    short = trainer(tmp_path, dataloader_drop_last=True, **settings)
    short.data_collator.collate = padded
    kept = np.argsort([len(ids) for ids in ragged()["input_ids"]], kind="stable")[:10]
    dropped = short.predict(ragged())
    np.testing.assert_array_equal(dropped.predictions, logits[np.sort(kept)])
    assert dropped.label_ids.tolist() == np.array(ragged()["labels"][:])[np.sort(kept)].tolist()


@pytest.mark.parametrize("settings", [{"eval_do_concat_batches": False}, {"dataloader_drop_last": True}])
def test_predictions_without_lengths_are_transformers_own(tmp_path, settings):
    made = trainer(tmp_path, per_device_eval_batch_size=5, **settings)
    found = made.predict(rows(12))
    assert len(found.predictions) == (3 if "eval_do_concat_batches" in settings else 10)


class Order(TrainerCallback):
    """Orders something at the end of some steps."""

    def __init__(self, due, every):
        self.due, self.every = due, every

    def on_step_end(self, args, state, control, **_):
        if state.global_step % self.every == 0:
            setattr(control, self.due, True)


def test_arguments_stand_where_transformers_has_them(tmp_path):
    args = CleaRConfig(str(tmp_path), use_cpu=True)
    made = CleaRTrainer(model(), args, padded, rows(), rows(12))
    assert made.data_collator.collate is padded
    assert (len(made.train_dataset), len(made.eval_dataset)) == (22, 12)


def test_an_epoch_that_a_callback_stops_is_refused(tmp_path):
    made = trainer(tmp_path)
    made.add_callback(Order("should_epoch_stop", 2))
    with pytest.raises(InputError, match="stops an epoch before its end"):
        made.train()


def test_a_checkpoint_that_a_later_callback_orders_waits_for_the_estimate(tmp_path):
    settings = {"num_train_epochs": 2, "warm_up_epochs": 1, "gradient_accumulation_steps": 1}
    made = trainer(tmp_path / "a", **settings)
    steps = len(made.get_train_dataloader())
    made.add_callback(Order("should_save", steps))
    made.train()
    again = trainer(tmp_path / "b", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{steps}"))
    assert made.estimate.epoch == again.estimate.epoch
    for name, value in weights(made).items():
        torch.testing.assert_close(weights(again)[name], value, rtol=0, atol=0)


def test_the_best_model_is_found_where_training_goes_on_elsewhere(tmp_path):
    settings = {
        "num_train_epochs": 3,
        "warm_up_epochs": 1,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "falling",
        "greater_is_better": True,
        "restart": False,
        "eval_dataset": rows(12),
    }
    falling = iter(range(100, 0, -1))
    made = trainer(tmp_path / "a", compute_metrics=lambda _: {"falling": next(falling)}, **settings)
    made.train()
    best = made.state.best_model_checkpoint
    last = max((tmp_path / "a").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    second = sorted((tmp_path / "a").glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)[1]
    assert best is not None
    assert best != str(last)
    again = trainer(tmp_path / "b", compute_metrics=lambda _: {"falling": 0}, **settings)
    again.train(resume_from_checkpoint=str(second))
    assert again.state.best_model_checkpoint == best
    for name, value in weights(made).items():
        torch.testing.assert_close(weights(again)[name], value, rtol=0, atol=0)


def test_epochs_that_are_changed_after_all_count(tmp_path):
    made = trainer(tmp_path, num_train_epochs=20, warm_up_epochs=0.5)
    made.args.num_train_epochs = 2
    made.train()
    assert made.schedule.warm_up_epochs == 1


def test_what_is_estimated_in_the_middle_of_plain_training_is_not_kept(tmp_path):
    class Look(TrainerCallback):
        def on_epoch_end(self, args, state, control, **_):
            seen.append(made.estimate.train.clean_probability)

    seen = []
    made = trainer(tmp_path, clean_routing=False, num_train_epochs=2, callbacks=[Look()])
    made.train()
    assert made.estimate.epoch == 2
    assert len(seen) == 2


@pytest.mark.parametrize("step", [2, 4, 10])
def test_what_is_looked_at_in_training_changes_nothing(tmp_path, step):
    """In the first and the second half of the warm-up, of six steps, and after it."""

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == step:
                self.seen = self.trainer.label_issues()

    settings = {**RECIPE, "label_estimator": "losses", "loss_ema": 0.5, "reestimate_every_epoch": True}
    settings |= {"eval_dataset": rows(9, seed=1), "eval_strategy": "epoch", "compute_metrics": accuracy}
    look = Look()
    looked = trainer(tmp_path / "a", callbacks=[look], **settings)
    look.trainer = looked
    looked.train()
    assert len(look.seen) == 22
    other = trained(tmp_path / "b", **settings)
    assert other.phase is Phase.ROBUST
    assert all(torch.equal(weights(other)[name], weight) for name, weight in weights(looked).items())
    np.testing.assert_array_equal(looked.estimate.losses, other.estimate.losses)
    np.testing.assert_array_equal(looked.estimate.validation_weights, other.estimate.validation_weights)


def test_rows_without_a_label_do_not_count_in_the_loss_of_an_evaluation(tmp_path):
    made = trainer(tmp_path)
    some = rows(6).to_dict()
    hidden = Dataset.from_dict(some | {"labels": [*some["labels"][:4], -100, -100]})
    assert made.evaluate(hidden)["eval_loss"] == pytest.approx(
        made.evaluate(rows(6).select(range(4)))["eval_loss"], rel=1e-5
    )


def test_columns_that_are_no_numbers_are_left_alone(tmp_path):
    odd = rows().add_column("length", [None] * 22).add_column("clean_label", [[1], [2, 3]] * 11)
    trainer(tmp_path, train_dataset=odd, num_train_epochs=1).train()


def test_length_alone_decides_what_goes_together_without_a_column_of_lengths(tmp_path):
    made = trainer(tmp_path, train_dataset=ragged(), train_sampling_strategy="group_by_length")
    made.data_collator.collate = padded
    order = sampled(made)
    lengths = np.array([len(ids) for ids in ragged()["input_ids"]])[order].reshape(-1, 4)
    assert sorted(order) == list(range(12))
    assert (np.ptp(lengths, axis=1) <= 1).all()


def test_the_order_has_a_seed_of_its_own(tmp_path):
    first, same, other = (
        sampled(trainer(tmp_path, seed=seed, data_seed=data_seed))
        for seed, data_seed in ((0, 1), (5, 1), (0, 2))
    )
    assert first == same != other


def test_a_sampler_of_ones_own_may_draw_fewer_rows(tmp_path):
    seen = []

    class Own(CleaRTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return WeightedRandomSampler(torch.ones(22), 14)

        def per_example_loss(self, logits, labels, ids):
            seen.append(len(labels))
            return super().per_example_loss(logits, labels, ids)

    args = trainer(tmp_path, num_train_epochs=1, gradient_accumulation_steps=1).args
    Own(model(), args, train_dataset=rows()).train()
    assert seen == [4, 4, 4, 2]


def test_the_tokenizer_of_a_collator_is_saved(tmp_path):
    class Tokenizer:
        def save_pretrained(self, folder):
            (tmp_path / "told").write_text(str(folder))

    made = trainer(tmp_path)
    made.data_collator = type(made.data_collator)(DataCollatorWithPadding(Tokenizer()))
    made.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "told").read_text() == str(tmp_path / "saved")


def test_a_transform_makes_the_inputs(tmp_path):
    def transform(batch):
        return {"input_ids": batch["tokens"], "labels": batch["labels"]}

    table = rows().rename_column("input_ids", "tokens")
    made = trained(tmp_path, train_dataset=table.with_transform(transform), remove_unused_columns=False)
    assert made.estimate.train.clean_probability.shape == (22,)
    assert made.store.rows.labels.tolist() == rows()["labels"][:]


class _ByBatches:
    def __call__(self, prediction, compute_result):
        return {"last": float(compute_result)}


@pytest.mark.parametrize(
    ("measure", "settings", "expected"),
    [
        (accuracy, {}, {"accuracy", "weighted_accuracy"}),
        (lambda p: {"rows": len(p.predictions)}, {"eval_do_concat_batches": False}, {"rows"}),
        (_ByBatches(), {"batch_eval_metrics": True}, {"last"}),
    ],
)
def test_metrics_of_every_kind(tmp_path, measure, settings, expected):
    made = trained(
        tmp_path, eval_dataset=rows(9, seed=1), compute_metrics=measure, eval_strategy="epoch", **settings
    )
    found = {name.removeprefix("eval_") for entry in made.state.log_history for name in entry}
    assert found & {"accuracy", "weighted_accuracy", "rows", "last"} == expected


def test_predictions_of_classes_have_metrics_too(tmp_path):
    made = trainer(
        tmp_path,
        eval_dataset=rows(9, seed=1),
        compute_metrics=lambda p: {"hits": float((p.predictions == p.label_ids).mean())},
        eval_strategy="epoch",
    )
    made.preprocess_logits_for_metrics = lambda logits, labels: logits.argmax(-1)
    made.train()
    assert any("eval_hits" in entry for entry in made.state.log_history)


@pytest.mark.parametrize(
    ("settings", "warm_up", "epochs"),
    [
        ({"max_steps": 60}, 2, 10),
        ({"max_steps": 60, "num_train_epochs": 1}, 2, 10),
        ({"max_steps": 6, "num_train_epochs": 100}, 0, 1),
        ({"num_train_epochs": 10}, 2, 10),
    ],
)
def test_steps_make_as_many_epochs_as_they_are(tmp_path, settings, warm_up, epochs):
    made = trained(tmp_path, **RECIPE, **settings)
    assert (made.schedule.warm_up_epochs, made.state.epoch) == (warm_up, epochs)
    assert made.estimate.epoch == warm_up


class _Evaluated(TrainerCallback):
    """Whether a model that is evaluated has other weights than the last step has left."""

    def __init__(self):
        self.shown = {}

    def on_step_end(self, args, state, control, model, **_):
        self.last = [p.detach().clone() for p in model.parameters() if p.requires_grad]

    def on_evaluate(self, args, state, control, model, **_):
        now = [p for p in model.parameters() if p.requires_grad]
        same = all(torch.equal(a, b) for a, b in zip(self.last, now, strict=True))
        self.shown[round(state.epoch, 2)] = not same


def test_what_is_evaluated_in_the_middle_of_an_epoch_is_the_average(tmp_path):
    spy = _Evaluated()
    made = trainer(
        tmp_path,
        eval_dataset=rows(9, seed=1),
        callbacks=[spy],
        compute_metrics=accuracy,
        **RECIPE,
        **dict.fromkeys(("eval_strategy", "save_strategy"), "steps"),
        **dict.fromkeys(("eval_steps", "save_steps"), 4),
        load_best_model_at_end=True,
        max_steps=16,
    )
    made.train()
    # six steps an epoch, of which one is spent on finding wrong labels
    assert spy.shown == {0.67: False, 1.33: True, 2.0: True, 2.67: True}
    assert made.restarts
    assert made.state.best_global_step > 8
    best = weights(made)
    made.evaluate()
    assert all(torch.equal(best[name], weight) for name, weight in weights(made).items())


def test_the_last_evaluation_is_of_the_model_that_is_left(tmp_path):
    ends = {"eval_strategy": "steps", "eval_steps": 16, "max_steps": 16}
    made = trained(tmp_path, eval_dataset=rows(9, seed=1), compute_metrics=accuracy, **RECIPE, **ends)
    (last,) = (entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry)
    assert made.evaluate()["eval_loss"] == last


def test_training_again_begins_with_a_plain_warm_up(tmp_path):
    made, phases = trainer(tmp_path, **RECIPE, num_train_epochs=5), []
    plain_loss = made.per_example_loss

    def spy(logits, labels, ids):
        phases.append((made.state.epoch < 1, made.phase))
        return plain_loss(logits, labels, ids)

    made.train()
    made.per_example_loss = spy
    with pytest.warns(ClearWarning, match="looks trained"):
        made.train()
    assert set(phases) == {(True, Phase.WARM_UP), (False, Phase.ROBUST)}


@pytest.mark.parametrize("others", [(), ("other",)])
def test_adapters_by_other_names_come_back_from_checkpoints(tmp_path, others):
    def named():
        base, _ = tiny("bert")
        torch.manual_seed(0)
        config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=2)
        made = peft.get_peft_model(base, config, adapter_name="mine")
        for name in others:
            made.add_adapter(name, config)
        return made

    settings = {"start": named(), "save_strategy": "epoch", "gradient_accumulation_steps": 1}
    whole = trained(tmp_path / "a", **settings)
    half = trainer(tmp_path / "b", **settings)
    half.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-12"))
    assert all(torch.equal(weights(whole)[name], weight) for name, weight in weights(half).items())


def test_what_cannot_be_taken_is_said(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(InputError, match="args is a TrainingArguments: give a CleaRConfig"):
        CleaRTrainer(model(), args, None, rows())
    with pytest.raises(InputError, match="give model, and no model_init"):
        CleaRTrainer(model_init=model, args=CleaRConfig(str(tmp_path), use_cpu=True), train_dataset=rows())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"label": [2, 1, 0] * 4}, "training set has different labels in its columns labels and label: keep"),
        ({"labels": [[0], [1, 2]] * 6}, "labels of the training set are of several lengths"),
    ],
)
def test_labels_that_cannot_be_told_are_refused(tmp_path, labels, said):
    table = rows(12)
    for name, values in labels.items():
        table = Dataset.from_dict({**table.to_dict(), name: values})
    with pytest.raises(InputError, match=said):
        trainer(tmp_path, train_dataset=table)


def test_two_columns_that_agree_are_one(tmp_path):
    table = rows(12)
    trained(tmp_path, train_dataset=table.add_column("label", table["labels"][:]))


def test_validation_labels_are_looked_at_before_training(tmp_path):
    beyond = Dataset.from_dict({**rows(12).to_dict(), "labels": [9] * 12})
    with pytest.raises(InputError, match="labels of the validation set must lie in"):
        trainer(tmp_path, eval_dataset=beyond, compute_metrics=accuracy)


def test_rows_without_labels_are_no_validation_rows(tmp_path):
    bare = rows(12).remove_columns("labels")
    made = trained(tmp_path, eval_dataset=bare, compute_metrics=accuracy, **RECIPE)
    assert made.estimate.validation is None
    assert len(made.estimate.validation_weights) == 0


@pytest.mark.parametrize("size", [9, 5, 14])
def test_an_evaluation_set_that_is_given_later(tmp_path, size):
    settings = {**RECIPE, "compute_metrics": accuracy, "eval_strategy": "epoch"}
    later = trainer(tmp_path, eval_dataset=rows(9, seed=1), **settings)
    later.eval_dataset = rows(size, seed=2)
    later.train()
    given = trained(tmp_path, eval_dataset=rows(size, seed=2), **settings)
    assert later.estimate.validation.given.tolist() == rows(size, seed=2)["labels"][:]
    np.testing.assert_array_equal(later.estimate.validation_weights, given.estimate.validation_weights)
    names = ("eval_loss", "eval_accuracy", "eval_weighted_accuracy")
    ours, theirs = (
        [[entry[name] for name in names] for entry in made.state.log_history if "eval_loss" in entry]
        for made in (later, given)
    )
    assert ours == theirs != []


def test_rows_of_other_sets_count_alike(tmp_path):
    seen = []

    class Elsewhere(TrainerCallback):
        def on_epoch_end(self, args, state, control, **_):
            figures = made.evaluate(rows(12, seed=5), metric_key_prefix="other")
            seen.append((figures["other_accuracy"], figures["other_weighted_accuracy"]))

    made = trainer(tmp_path, eval_dataset=rows(12), compute_metrics=accuracy, **RECIPE)
    made.add_callback(Elsewhere())
    made.train()
    assert seen
    assert all(plain == pytest.approx(weighted) for plain, weighted in seen)


def test_validation_rows_that_are_dropped_or_others_count_alike(tmp_path):
    """Weights are known of each row of the validation set that labels were estimated with, or of none."""
    settings = {**RECIPE, "compute_metrics": accuracy, "eval_strategy": "epoch", "save_strategy": "epoch"}
    dropped = {"dataloader_drop_last": True, "per_device_eval_batch_size": 8}
    made = trained(tmp_path / "dropped", eval_dataset=rows(13), **dropped, **settings)
    assert made.estimate.noise_found
    trained(tmp_path / "none", **{**settings, "eval_strategy": "no"})
    trained(tmp_path / "other", eval_dataset=rows(9, seed=1), **settings)
    for name in ("none", "other"):
        longer = {**settings, "num_train_epochs": 4}
        resumed = trainer(tmp_path / name, eval_dataset=rows(13), **longer)
        resumed.train(resume_from_checkpoint=True)
        assert resumed.estimate.noise_found
        last = next(e for e in reversed(resumed.state.log_history) if "eval_accuracy" in e)
        assert last["eval_weighted_accuracy"] == pytest.approx(last["eval_accuracy"])


def test_a_model_with_a_label_for_each_token_refuses_labels_of_texts(tmp_path):
    start = AutoModelForTokenClassification.from_config(model().get_base_model().config)
    tokens = peft.get_peft_model(start, peft.LoraConfig(task_type="TOKEN_CLS", target_modules=["query"]))
    with pytest.raises(InputError, match="a class index for each token"):
        trained(tmp_path, start=tokens, **RECIPE)


def test_without_training_rows_a_model_is_still_evaluated(tmp_path):
    args = CleaRConfig(str(tmp_path), use_cpu=True, report_to="none")
    made = CleaRTrainer(model(), args, eval_dataset=rows(12))
    whole = trainer(tmp_path)
    assert made.evaluate()["eval_loss"] == whole.evaluate(rows(12))["eval_loss"]
    np.testing.assert_array_equal(made.predict(rows(4)).predictions, whole.predict(rows(4)).predictions)
    made.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "adapter_config.json").is_file()
    with pytest.raises(ValueError, match="train_dataset"):
        made.train()


def test_without_training_rows_there_is_nothing_to_list(tmp_path):
    made = CleaRTrainer(model(), CleaRConfig(str(tmp_path), use_cpu=True), eval_dataset=rows(12))
    with pytest.raises(InputError, match="no labels to estimate: give train_dataset"):
        made.label_issues()


def test_options_of_the_loss_from_a_command_line(tmp_path):
    def parsed(options):
        words = ["--output_dir", str(tmp_path), "--loss", "gce", "--loss_options", options]
        return HfArgumentParser(CleaRConfig).parse_args_into_dataclasses(words)[0]

    assert parsed('{"q": 0.5}').options == {"q": 0.5}
    for wrong in ("q=0.5", "[1]"):
        with pytest.raises(InputError, match="loss_options is "):
            parsed(wrong)


def test_an_average_in_bf16_follows_its_weights():
    layer = torch.nn.Linear(4, 2).to(torch.bfloat16)
    average = EMA(layer, 0.99)
    average.update()
    expected = copy.deepcopy(layer)
    with torch.no_grad():
        for weight in (*layer.parameters(), *expected.parameters()):
            weight.mul_(1.2)
    for _ in range(2000):
        average.update()
    average.copy_to_model()
    assert layer.weight.dtype == torch.bfloat16
    assert torch.allclose(layer.weight, expected.weight, rtol=1e-2)


@pytest.mark.parametrize("classes", [2, 5])
def test_features_that_say_nothing_make_a_head_that_says_nothing(classes):
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(400, 32)), generator.integers(classes, size=400)
    start = fit_linear_head(features, labels, classes, clean_probability=np.full(400, 0.7))
    fresh = start(generator.normal(size=(1000, 32)))
    loss = cross_entropy(
        torch.from_numpy(fresh).log(), torch.from_numpy(generator.integers(classes, size=1000))
    )
    assert loss.mean() < 1.1 * np.log(classes)


def test_it_pushes_its_adapter_and_a_card(tmp_path, hub):
    made = trained(tmp_path, hub_model_id="someone/tickets")
    made.push_to_hub(private=True)
    assert is_private(hub.repositories["someone/tickets"])
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "training_args.bin"}
    assert set(hub.files) == names
    assert ModelCard(hub.files["README.md"].decode()).data.library_name == "peft"
    assert all(hub.token.encode() not in content for content in hub.files.values())
    saved = PeftModel.from_pretrained(tiny("bert")[0], tmp_path)
    for name, weight in made.model.state_dict().items():
        assert torch.equal(weight, saved.state_dict()[name])


def test_frozen_weights_that_are_rounded_once_change_no_bit_of_a_training(monkeypatch, tmp_path):
    monkeypatch.setattr("clear_peft.cpu._LONGEST", 0)  # attention is torch's
    start, settings = model_without_dropout(), {"bf16": True, "num_train_epochs": 1, "logging_steps": 1}
    made = trained(tmp_path / "a", start=start, **settings)
    frozen = {name: p for name, p in made.model.named_parameters() if not p.requires_grad}
    assert all(torch.equal(frozen[name], p) for name, p in start.named_parameters() if name in frozen)
    monkeypatch.setattr("clear_peft.trainer.trainer.faster", nullcontext)
    other = trained(tmp_path / "b", start=start, **settings)
    assert all(torch.equal(weights(other)[name], weight) for name, weight in weights(made).items())
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (made, other)]
    assert losses[0] == losses[1]


def test_a_step_that_fails_leaves_torch_as_it_was(tmp_path):
    class Failing(CleaRTrainer):
        def per_example_loss(self, *_):
            assert is_faster()
            raise RuntimeError("no more")

    made = trainer(tmp_path)
    made.__class__ = Failing
    with pytest.raises(RuntimeError, match="no more"):
        made.train()
    assert not is_faster()


def is_faster():
    return any(isinstance(mode, FasterCPU) for mode in _get_current_function_mode_stack())
