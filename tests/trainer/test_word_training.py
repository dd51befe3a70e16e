"""A label for each word: what the trainer makes of them, beside transformers' own and plain numpy."""

import copy
import shutil

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from toy import rows as rows_of_texts
from toy import trainer, weights
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from clear_peft.baselines.co_teaching import CoTeachingTrainer
from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality
from clear_peft.trainer import CleaRConfig, Phase, estimators
from clear_peft.trainer.spans import SpanScheme, word_figures
from clear_peft.trainer.words import WordRows
from clear_peft.tuners import build, load_adapter
from processes import check_two_train_as_one
from tiny_models import tiny

LABELS = 3
NAMES = ("O", "B-X", "I-X")
SETTINGS = {
    "label_estimator": "probe",
    "reestimate_every_epoch": False,
    "restart": True,
    "probe_init": True,
    "ema_epochs": 1.0,
    "noise_threshold": 0.0,
    "gradient_accumulation_steps": 1,
}
EVALUATED = {
    "save_strategy": "epoch",
    "eval_strategy": "epoch",
    "metric_for_best_model": "weighted_accuracy",
}


def tags(size=48, seed=0, wrong=0.0):
    """Sentences of 3 to 8 words of one or two tokens; the first token of a word tells its tag."""
    rng = np.random.default_rng(seed)
    columns = {"input_ids": [], "attention_mask": [], "labels": [], "true": []}
    for _ in range(size):
        ids, labels, true = [2], [-100], [-100]
        for _ in range(rng.integers(3, 9)):
            tag = int(rng.integers(LABELS))
            ids.append(3 + tag + LABELS * int(rng.integers(3)))
            true.append(tag)
            labels.append(int((tag + rng.integers(1, LABELS)) % LABELS) if rng.random() < wrong else tag)
            if rng.random() < 0.4:
                ids.append(int(rng.integers(20, 90)))
                labels.append(-100)
                true.append(-100)
        columns["input_ids"].append([*ids, 1])
        columns["labels"].append([*labels, -100])
        columns["true"].append([*true, -100])
        columns["attention_mask"].append([1] * (len(ids) + 1))
    return Dataset.from_dict(columns)


def base():
    config = tiny("bert", num_labels=LABELS)[0].config
    config.id2label, config.label2id = dict(enumerate(NAMES)), {name: i for i, name in enumerate(NAMES)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForTokenClassification.from_config(config)


def model(dropout=0.1):
    torch.manual_seed(0)
    config = peft.LoraConfig(
        task_type="TOKEN_CLS",
        target_modules="all-linear",
        r=4,
        lora_dropout=dropout,
        modules_to_save=["classifier"],
    )
    return peft.get_peft_model(base(), config)


class Padded:
    """As a tokenizer pads, on the right."""

    padding_side = "right"

    def pad(self, features, **_):
        longest = max(len(feature["input_ids"]) for feature in features)
        return {
            name: torch.tensor([feature[name] + [0] * (longest - len(feature[name])) for feature in features])
            for name in ("input_ids", "attention_mask")
        }


def made(tmp_path, start=None, **settings):
    found = trainer(
        tmp_path,
        start=start or model(),
        **{"train_dataset": tags(), "eval_strategy": "no", **SETTINGS, **settings},
    )
    found.data_collator.collate = DataCollatorForTokenClassification(Padded())
    return found


def words_of(table, name="labels"):
    every = np.concatenate(table[name][:])
    return every[np.concatenate(table["labels"][:]) != -100]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    found = made(folder, train_dataset=tags(wrong=0.2), **EVALUATED)
    found.train()
    return found, folder


def test_words_are_judged_after_the_warm_up_and_training_restarts(trained):
    found, _ = trained
    assert found.phase is Phase.ROBUST
    assert found.restarts
    table = tags(wrong=0.2)
    quality = found.label_quality
    assert isinstance(quality, LabelQuality)
    np.testing.assert_array_equal(quality.given, words_of(table))
    sizes = [sum(label != -100 for label in row) for row in table["labels"]]
    np.testing.assert_array_equal(quality.rows, np.repeat(np.arange(48), sizes))
    wrong = words_of(table) != words_of(table, "true")
    p = quality.clean_probability
    assert p[wrong].mean() < p[~wrong].mean() - 0.3
    evaluations = [entry for entry in found.state.log_history if "eval_weighted_accuracy" in entry]
    assert len(evaluations) == 3
    assert {"eval_accuracy", "eval_span_f1"} <= set(evaluations[-1])


def test_issues_name_the_word_of_the_sentence(trained):
    found, _ = trained
    issues, table = found.label_issues(), tags(wrong=0.2)
    assert list(issues.columns[:4]) == ["row", "word", "given_label", "predicted_label"]
    assert issues["clean_probability"].is_monotonic_increasing
    for issue in issues.itertuples():
        labels = [label for label in table["labels"][issue.row] if label != -100]
        assert issue.given_label == NAMES[labels[issue.word]]
    assert not issues.duplicated(["row", "word"]).any()


def test_targets_gates_and_weights_of_words(trained):
    found, _ = trained
    quality, store = found.estimate.train, found.store
    size = len(quality)
    labels, ids = torch.from_numpy(quality.given), torch.arange(size)
    targets = store.soft_labels(labels, ids).numpy()
    np.testing.assert_allclose(targets[range(size), quality.given], quality.clean_probability, atol=1e-5)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)
    c, likeliest = targets.max(axis=1).astype(np.float64), targets.argmax(axis=1)
    sentence = np.unique(quality.rows, return_inverse=True)[1]
    np.testing.assert_allclose(
        store.confidence.numpy(), np.bincount(sentence, c) / np.bincount(sentence), atol=1e-5
    )
    counted = c / np.bincount(likeliest, c)[likeliest] ** 0.5
    np.testing.assert_allclose(store.loss_weights.numpy(), counted / counted.mean(), rtol=1e-4)
    logits = torch.randn(size, LABELS, generator=torch.Generator().manual_seed(1))
    loss = found.per_example_loss(logits, labels, ids)
    expected = (
        cross_entropy(logits, torch.from_numpy(targets), reduction="none").numpy() * counted / counted.mean()
    )
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_resumed_run_ends_with_the_same_weights(trained, tmp_path):
    found, folder = trained
    steps = found.state.max_steps // 3
    for epoch in (1, 2):
        place = tmp_path / str(epoch)
        shutil.copytree(folder / f"checkpoint-{steps * epoch}", place / f"checkpoint-{steps * epoch}")
        again = made(place, train_dataset=tags(wrong=0.2), **EVALUATED)
        again.train(resume_from_checkpoint=str(place / f"checkpoint-{steps * epoch}"))
        for name, weight in weights(found).items():
            assert torch.equal(weight, weights(again)[name]), name


def without_dropout():
    found = model(dropout=0.0)
    for module in found.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return found


PLAIN = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "dataloader_pin_memory": False,
}


def losses(found):
    return [entry["loss"] for entry in found.state.log_history if "loss" in entry]


def test_plain_training_is_that_of_transformers(tmp_path):
    start, table = without_dropout(), tags().remove_columns("true")
    theirs = Trainer(
        model=copy.deepcopy(start),
        args=TrainingArguments(str(tmp_path / "theirs"), **PLAIN),
        train_dataset=table,
        data_collator=DataCollatorForTokenClassification(Padded()),
    )
    theirs.train()
    ours = made(tmp_path / "ours", start=start, train_dataset=table, clean_routing=False, **PLAIN)
    ours.train()
    assert ours.phase is Phase.PLAIN
    for name, weight in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-4)
    assert ours.evaluate(table)["eval_loss"] == pytest.approx(theirs.evaluate(table)["eval_loss"])


def test_all_words_of_a_step_count_alike(tmp_path):
    """However many batches it has, of however long sentences."""
    whole, parts = (
        made(
            tmp_path / str(together),
            start=without_dropout(),
            clean_routing=False,
            **{
                **PLAIN,
                "gradient_accumulation_steps": together,
                "per_device_train_batch_size": 8 // together,
            },
        )
        for together in (1, 4)
    )
    whole.train()
    parts.train()
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-4)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], weight, rtol=1e-3, atol=1e-4)


def test_without_noise_training_goes_on_as_plain_from_a_probe_head(tmp_path):
    """No noise is found: the restart is not taken, and what was estimated has no part in training."""
    found = made(tmp_path / "a", noise_threshold=1.0)
    found.train()
    assert found.phase is Phase.CONTINUE
    other = made(tmp_path / "b", warm_up_epochs=3.0)
    other.train()
    for name, weight in weights(found).items():
        assert torch.equal(weight, weights(other)[name]), name


def test_the_head_begins_as_a_probe_of_the_words(tmp_path):
    found = made(tmp_path)
    before = found.evaluate(tags())
    found.weights.begin(found.create_optimizer())
    after = found.evaluate(tags())
    assert after["eval_loss"] < before["eval_loss"] / 2


def test_figures_are_those_of_words_and_spans(tmp_path):
    table = tags(size=9, seed=3)
    found = made(tmp_path, metric_for_best_model="span_f1", train_sampling_strategy="group_by_length")
    made_of = found.predict(table)
    predicted = np.concatenate(
        [
            scores[: len(labels)][np.array(labels) != -100].argmax(axis=1)
            for scores, labels in zip(made_of.predictions, table["labels"], strict=True)
        ]
    )
    first = np.concatenate([np.arange(sum(label != -100 for label in row)) == 0 for row in table["labels"]])
    expected = word_figures(predicted, words_of(table), first, SpanScheme.of(NAMES))
    assert found.evaluate(table)["eval_span_f1"] == pytest.approx(expected["span_f1"])
    assert made_of.metrics["test_accuracy"] == pytest.approx(expected["accuracy"])


def test_weights_of_validation_words_are_in_the_order_of_the_evaluation(tmp_path):
    found = made(
        tmp_path, train_dataset=tags(wrong=0.2), train_sampling_strategy="group_by_length", **EVALUATED
    )
    seen = []
    measure = found.task.weighted_metrics

    def spy(logits, labels, known):
        seen.append((labels, known))
        return measure(logits, labels, known)

    found.task.weighted_metrics = spy
    found.train()
    labels, known = seen[-1]
    validation = found.estimate.validation
    table = found.eval_dataset
    order = np.argsort([len(ids) for ids in table["input_ids"]], kind="stable")
    sentence = np.unique(validation.rows, return_inverse=True)[1]
    by_sentence = [validation.clean_probability[sentence == i] for i in range(len(table))]
    np.testing.assert_allclose(known, np.concatenate([by_sentence[i] for i in order]), atol=1e-6)
    np.testing.assert_array_equal(
        labels[labels != -100],
        np.concatenate([np.array(table["labels"][i]) for i in order]).astype(int)[
            np.concatenate([np.array(table["labels"][i]) for i in order]) != -100
        ],
    )


def test_blocks_are_of_whole_sentences_and_the_first_has_every_tag(monkeypatch):
    table = tags(size=200)
    labels = [
        [0 if label == 2 and i > 5 else label for label in row] for i, row in enumerate(table["labels"])
    ]
    rows = WordRows(table.remove_columns("labels").add_column("labels", labels), LABELS, "length", "training")
    assert len(rows.blocks(0)) == 1
    monkeypatch.setattr(estimators, "MOST_ROWS", 300)
    blocks = rows.blocks(0)
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(len(rows)))
    for block in blocks:
        np.testing.assert_array_equal(rows.units_of(rows.rows_of(block)), block)
    rare = rows.labels == 2
    assert rare[blocks[0]].sum() == rare.sum()
    for tag in range(2):
        assert (rows.labels[blocks[0]] == tag).sum() >= 50


def test_where_not_all_rare_tags_fit_the_first_block_has_some_of_each(monkeypatch):
    """120 sentences have a word of a rare tag, 49 fit; all else is of tag 0."""
    tags = [[0] * 10 + [1 + i % 30] + [0] * 9 for i in range(120)]
    table = Dataset.from_dict({"input_ids": [[5] * 20] * 120, "labels": tags})
    rows = WordRows(table, 31, "length", "training")
    monkeypatch.setattr(estimators, "MOST_ROWS", 980)
    for seed in range(3):
        first, *others = rows.blocks(seed)
        np.testing.assert_array_equal(np.sort(np.concatenate([first, *others])), np.arange(len(rows)))
        assert len(first) == 980
        counts = np.bincount(rows.labels[first], minlength=31)[1:]
        assert set(counts) == {1, 2}


def test_estimates_by_blocks_are_about_those_of_all_words(tmp_path, monkeypatch):
    settings = {"train_dataset": tags(size=150, wrong=0.2), "num_train_epochs": 1, "warm_up_epochs": 1}
    whole = made(tmp_path / "a", **settings)
    monkeypatch.setattr(estimators, "MOST_ROWS", 500)
    parts = made(tmp_path / "b", **settings)
    p = [each.estimate.train.clean_probability for each in (whole, parts)]
    np.testing.assert_array_equal(whole.estimate.train.given, parts.estimate.train.given)
    assert np.corrcoef(*p)[0, 1] > 0.9


def test_copied_sentences_belong_together():
    table = tags(size=6)
    twice = Dataset.from_dict({name: [*cells, cells[2]] for name, cells in table.to_dict().items()})
    rows = WordRows(twice, LABELS, "length", "training")
    last, third = rows.units_of(np.array([6])), rows.units_of(np.array([2]))
    np.testing.assert_array_equal(rows.copies[last], rows.copies[third])
    assert len(np.unique(rows.copies)) == len(rows) - len(last)
    assert len(set(rows.groups[third]) | set(rows.groups[last])) == 1
    assert len(np.unique(rows.groups)) == 6
    np.testing.assert_array_equal(np.unique(rows.row[last]), [6])


@pytest.mark.parametrize("name", ["lora", "adapter", "bitfit", "dora"])
def test_a_saved_adapter_is_loaded_by_peft_alone(tmp_path, name):
    start = base()
    found = made(tmp_path, start=build(start, name), num_train_epochs=1, warm_up_epochs=0)
    found.train()
    found.model.save_pretrained(tmp_path / "adapter")
    batch = {key: torch.tensor([tags()[key][0]]) for key in ("input_ids", "attention_mask")}
    expected = found.model.eval()(**batch).logits
    assert expected.shape == (1, len(tags()["input_ids"][0]), LABELS)
    assert torch.equal(load_adapter(base(), tmp_path / "adapter").eval()(**batch).logits, expected)
    if name != "adapter":
        again = peft.PeftModel.from_pretrained(base(), str(tmp_path / "adapter")).eval()
        assert torch.equal(again(**batch).logits, expected)
        assert again.peft_config["default"].task_type == "TOKEN_CLS"


@pytest.mark.parametrize(
    "settings", [{"loss": "gce"}, {"class_weights": "balanced"}, {"label_estimator": "losses"}]
)
def test_losses_count_words_as_they_count_rows(tmp_path, settings):
    found = made(tmp_path, **settings, reestimate_every_epoch=True)
    found.train()
    assert len(found.label_quality) == len(words_of(tags()))
    figures = [entry["epoch_loss"] for entry in found.state.log_history if "epoch_loss" in entry]
    assert len(figures) == 3
    assert np.isfinite(figures).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"metric_for_best_model": "macro_f1"},
            "'macro_f1', which is not measured of words: give 'accuracy'",
        ),
        ({"metric_for_best_model": "weighted_micro_f1"}, "which is not measured of words"),
    ],
)
def test_settings_for_whole_texts_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        made(tmp_path, **settings)


def test_figures_of_words_are_refused_of_texts(tmp_path):
    with pytest.raises(InputError, match="'span_f1', which is for labels of words"):
        trainer(tmp_path, metric_for_best_model="span_f1")


def test_methods_for_whole_texts_are_refused(tmp_path):
    args = CleaRConfig(
        str(tmp_path), use_cpu=True, clean_routing=False, loss_options={"noise_rate": 0.2}, report_to="none"
    )
    with pytest.raises(InputError, match=r"is for one label a row: .* by AutoModelForSequenceClassification"):
        CoTeachingTrainer(model(), args, train_dataset=tags())
    with pytest.raises(InputError, match="rosa, metapeft and glora are trained with labels of whole texts"):
        made(tmp_path, start=build(base(), "rosa"))
    for name in ("prefix", "apt"):
        with pytest.raises(InputError, match=f"{name} is for labels of whole texts"):
            build(base(), name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: 1, r"the labels of row 0 of the training set are int64 of shape \(\), and it has"),
        (lambda row: row[1:], "a class index for each token, -100 where it has none; the labels of row 0"),
        (lambda row: [float(label) for label in row], "are float64 of shape"),
        (
            lambda row: [-100] * len(row),
            "No token of row 0 of the training set has a label: leave such rows out",
        ),
        (
            lambda row: [3 if label == 1 else label for label in row],
            "must lie in 0…2, -100 where a token has",
        ),
    ],
)
def test_labels_that_are_none_of_words_are_refused(tmp_path, change, message):
    table = tags()
    table = table.remove_columns("labels").add_column("labels", [change(row) for row in table["labels"]])
    with pytest.raises(InputError, match=message):
        made(tmp_path, train_dataset=table)


def test_columns_for_whole_texts_are_refused():
    with pytest.raises(InputError, match="The column verified is for labels of whole texts"):
        WordRows(tags().add_column("verified", [-1] * 48), LABELS, "length", "training")


def test_a_model_of_texts_refuses_labels_of_words(tmp_path):
    with pytest.raises(InputError, match="one class index per example"):
        trainer(tmp_path, train_dataset=tags())
    assert len(rows_of_texts()) == 22


def test_a_tokenizer_pads_labels_too(tmp_path):
    found = trainer(tmp_path, start=model(), train_dataset=tags(), **SETTINGS)
    assert not isinstance(found.data_collator.collate, DataCollatorForTokenClassification), (
        "there is no tokenizer"
    )
    assert isinstance(found.task.collator(Padded()), DataCollatorForTokenClassification)


def on_any_number(out, batch):
    """A training whose rows come in their order; the last batch is filled up."""
    found = made(
        out,
        start=without_dropout(),
        train_dataset=tags(29, wrong=0.3),
        eval_dataset=tags(11, seed=5, wrong=0.3),
        per_device_train_batch_size=batch,
        train_sampling_strategy="sequential",
        max_grad_norm=0.0,
        optim="sgd",
        num_train_epochs=2,
        **EVALUATED,
    )
    found.train()
    return found


def left_by(found):
    estimate = found.estimate
    arrays = {"p": estimate.train.clean_probability, "held_out": estimate.validation_weights}
    last = [entry for entry in found.state.log_history if "eval_span_f1" in entry][-1]
    arrays |= {"figures": np.array([last["eval_span_f1"], last["eval_weighted_accuracy"]])}
    return {**arrays, "weights": torch.cat([w.flatten() for w in weights(found).values()]).numpy()}


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    check_two_train_as_one(__file__, tmp_path, tolerance=1e-3)
