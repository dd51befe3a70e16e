"""``train``, ``predict``, ``evaluate`` and what follows, on tables whose words have labels."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForTokenClassification, AutoTokenizer

from clear_peft import tokenize_words
from clear_peft.data import LabelNames, read_table
from clear_peft.pipeline import train
from clear_peft.pipeline.progress import Silent
from clear_peft.run_folder import RunConfig
from tiny_text import KEYWORDS

TAGS = ["B-farm", "B-sail", "I-farm", "I-sail", "O"]
_OTHERS = ("the", "a", "of", "and", "old", "new")


def sentences(rows, seed, noise=0.0):
    """Words with their tags: names of one or two words among others; and the true tags."""
    rng = np.random.default_rng(seed)
    words, given, true = [], [], []
    for _ in range(rows):
        row, tags = [], []
        for _ in range(rng.integers(2, 5)):
            row.append(str(rng.choice(_OTHERS)))
            tags.append("O")
            kind, source = (("farm", "farming"), ("sail", "sailing"))[rng.integers(2)]
            size = int(rng.integers(1, 3))
            row += [str(word) for word in rng.choice(KEYWORDS[source], size)]
            tags += [f"B-{kind}", f"I-{kind}"][:size]
        words.append(row)
        true.append(tags)
        given.append([str(rng.choice(TAGS)) if rng.random() < noise else tag for tag in tags])
    return words, given, true


def written(path, words, tags, **more):
    if path.suffix == ".conll":
        blocks = [
            "\n".join(f"{word} x {tag}" for word, tag in zip(*pair, strict=True))
            for pair in zip(words, tags, strict=True)
        ]
        path.write_text("\n\n".join(blocks) + "\n")
    else:
        pd.DataFrame({"tokens": words, "tags": tags, **more}).to_json(path, orient="records", lines=True)
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    words, given, _ = sentences(90, 0, noise=0.2)
    written(folder / "train.conll", words, given)
    groups = [f"document {row // 2}" for row in range(90)]
    ids = [f"no. {row}" for row in range(90)]
    written(folder / "train.jsonl", words, given, document=groups, id=ids)
    words, _, true = sentences(30, 1)
    written(folder / "test.conll", words, true)
    written(folder / "test.jsonl", words, true)
    return folder


@pytest.fixture
def run_on(finished, tables):
    def run(ending, method="clear", **more):
        where = {"data": tables / f"train.{ending}", "test": tables / f"test.{ending}"}
        columns = {"clean_label_column": None, "id_column": None, **more}
        return finished(method, "lora", **where, **columns)

    return run


def test_the_run_folder_holds_what_is_promised(run_on):
    run = run_on("conll")
    assert {path.name for path in run.iterdir() if not path.name.startswith("checkpoint-")} == {
        *("adapter", "config.yaml", "data.sha256", "epochs.json", "label_issues.csv", "metrics.json")
    }
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["test"]) == set(metrics["validation"]) == {"accuracy", "span_f1"}
    assert metrics["test"]["accuracy"] > 0.7, "it learns"
    assert metrics["labels_of_words"]
    words, given, _ = sentences(90, 0, noise=0.2)
    assert metrics["words"] == sum(map(len, words))
    assert 0.05 < metrics["noise_rate_estimate"] < 0.35
    assert {"validation_span_f1", "validation_accuracy", "validation_weighted_accuracy", "gate_rate"} <= set(
        metrics["epochs"][-1]
    )
    held = {"problem_type": "token_classification", "labels": TAGS}
    assert json.loads((run / "adapter" / "labels.json").read_text()) == held
    assert LabelNames.load(run / "adapter" / "labels.json").words
    issues = pd.read_csv(run / "label_issues.csv")
    assert {"row", "start", "end", "words", "given_tags", "suggested_tags", "sentence"} <= set(issues)
    for issue in issues.itertuples():
        assert issue.words.split() == words[issue.row][issue.start : issue.end]
        assert issue.given_tags.split() == given[issue.row][issue.start : issue.end]


def test_json_lines_may_have_groups_and_ids(run_on):
    run = run_on("jsonl", group_column="document", id_column="id")
    issues = pd.read_csv(run / "label_issues.csv")
    assert issues["id"].tolist() == [f"no. {row}" for row in issues["row"]]


def test_evaluate_and_predict_agree_with_each_other_and_with_plain_peft(cli, run_on, place, tables, tmp_path):
    run, data, output = run_on("conll"), tables / "test.conll", tmp_path / "out.jsonl"
    end = cli("evaluate", "--run", run, "--data", data, "--format", "json")
    assert end.status == 0, end.err
    scores = json.loads(end.out)
    measured = json.loads((run / "metrics.json").read_text())["test"]
    assert {name: scores[name] for name in measured} == measured
    assert cli("predict", "--run", run, "--data", data, "--output", output).status == 0
    table = read_table(output)
    assert list(table.columns) == ["tokens", "tags", "line", "predicted_tags", "confidence"]
    pairs = [
        (said, tag)
        for row in table.itertuples()
        for said, tag in zip(row.predicted_tags, row.tags, strict=True)
    ]
    assert scores["accuracy"] == pytest.approx(np.mean([said == tag for said, tag in pairs]))
    assert (scores["words"], scores["sentences"]) == (len(pairs), 30)
    assert [one["label"] for one in scores["classes"]] == ["farm", "sail"]
    names = sum(tag.startswith("B-") for _, tag in pairs)
    assert sum(one["support"] for one in scores["classes"]) == names
    adapter = run / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    base = AutoModelForTokenClassification.from_pretrained(
        place.model, num_labels=len(TAGS), ignore_mismatched_sizes=True
    )
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    theirs = []
    for row in tokenize_words(table["tokens"].tolist(), None, tokenizer, 32):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        theirs += [TAGS[i] for i in logits[np.array(row["labels"]) != -100].argmax(dim=1).tolist()]
    assert np.mean([said == tag for (said, _), tag in zip(pairs, theirs, strict=True)]) > 0.95, "but bf16"
    line = cli("evaluate", "--run", run, "--data", data).out
    assert f"of 30 sentences; spans: F1 {scores['span_f1']:.4f}" in " ".join(line.split())


def test_words_without_tags_are_predicted(cli, run_on, tmp_path):
    words, _, _ = sentences(5, 3)
    pd.DataFrame({"tokens": [words[0] * 6, *words[1:]]}).to_json(
        tmp_path / "in.jsonl", orient="records", lines=True
    )
    end = cli(
        "predict", "--run", run_on("conll"), "--data", tmp_path / "in.jsonl", "--output", tmp_path / "out.csv"
    )
    assert end.status == 0, end.err
    table = pd.read_csv(tmp_path / "out.csv")
    sizes = [len(words[0]) * 6, *map(len, words[1:])]
    for column in ("predicted_tags", "confidence"):
        assert [len(json.loads(cell)) for cell in table[column]] == sizes, "long sentences, too"


def test_the_code_of_the_model_card_says_what_predict_says(cli, run_on, place, tables, tmp_path):
    run, output = run_on("conll"), tmp_path / "out.jsonl"
    assert cli("predict", "--run", run, "--data", tables / "test.conll", "--output", output).status == 0
    table = read_table(output)
    card = (run / "adapter" / "README.md").read_text()
    assert "F1 of spans" in card
    assert "token-classification" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace("path/to/this/folder", str(run / "adapter")).replace(
        "path/to/the/base/model", place.model
    )
    loading, predicting = code.split('words = ["a", "text"]\n')
    scope, said = {}, []
    exec(loading, scope)
    for words in table["tokens"]:
        exec(predicting.replace("print(", "said.extend("), {**scope, "words": words, "said": said})
    assert (
        np.mean([a == b for a, b in zip(said, np.concatenate(table["predicted_tags"]), strict=True)]) > 0.95
    )
    merged = tmp_path / "merged"
    assert cli("export", "--run", run, "--output", merged).status == 0
    assert json.loads((merged / "config.json").read_text())["architectures"] == ["BertForTokenClassification"]


class _Interrupt(Silent):
    """Ctrl-C when an epoch is over."""

    def epoch(self, figures):
        if figures["epoch"] == 2:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_bit_for_bit_as_another(place, tables, tmp_path):
    def config(name):
        return RunConfig(
            model=place.model,
            data=str(tables / "train.conll"),
            output=str(tmp_path / name),
            epochs=3,
            batch_size=16,
            max_length=10,  # windows
            learning_rate=0.01,
        )

    train(config("a"))
    with pytest.raises(KeyboardInterrupt):
        train(config("b"), reporter=_Interrupt())
    train(config("b"), resume=True)
    for file in ("label_issues.csv", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    words, given, _ = sentences(90, 0, noise=0.2)
    issues = pd.read_csv(tmp_path / "a" / "label_issues.csv")
    for issue in issues.itertuples():
        assert issue.words.split() == words[issue.row][issue.start : issue.end]
        assert issue.given_tags.split() == given[issue.row][issue.start : issue.end]


@pytest.mark.parametrize("options", [{"method": "plain"}, {"method": "gce", "select_by": "span_f1"}])
def test_other_methods_train_too(cli, place, tables, tmp_path, options):
    data = {"data": tables / "train.jsonl", "test": tables / "test.conll", "epochs": 5, "batch_size": 8}
    end = cli("train", *place.options(tmp_path / "run", **data, **options))
    assert end.status == 0, end.err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": "cleanlab"}, "method is 'cleanlab', which is for labels of whole texts"),
        ({"method": "co_teaching"}, "choose from clear, plain, early_stopping, full, full_early_stopping"),
        ({"select_by": "macro_f1"}, "choose accuracy, weighted_accuracy, span_f1, loss"),
        ({"label_separator": ";"}, "label_separator is ';', which is for labels of whole texts"),
        ({"label_columns": "a,b"}, "which is for labels of whole texts"),
        ({"normalize_labels": True}, "normalize_labels is True, which is for labels of whole texts"),
        ({"long_texts": "tail"}, "long sentences are read in windows"),
        ({"clean_label_column": "tags"}, "--clean-label-column is for tables with one label a row"),
        ({"verified": "x.csv"}, "--verified is for tables with one label a row"),
        ({"opinion_column": "tags"}, "--opinion-column is for tables with one label a row"),
        ({"peft": "prefix"}, "prefix is for labels of whole texts"),
        ({"peft": "metapeft"}, "rosa, metapeft and glora are trained with labels of whole texts"),
        ({"group_column": "nobody"}, "has no column 'nobody'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(cli, place, tables, tmp_path, options, expected):
    end = cli("train", *place.options(tmp_path / "run", data=tables / "train.conll", **options))
    assert end.status == 2, end.err
    assert expected in " ".join(end.err.split())
    assert not (tmp_path / "run").exists()


def test_a_test_table_with_tags_that_the_run_does_not_know_is_refused(cli, place, tables, tmp_path):
    words, _, true = sentences(5, 2)
    true[2][0] = "B-weave"
    written(tmp_path / "test.conll", words, true)
    end = cli(
        "train",
        *place.options(tmp_path / "run", data=tables / "train.conll", test=tmp_path / "test.conll"),
    )
    assert end.status == 2
    assert "'B-weave'" in end.err
    assert "are not among the known ones" in " ".join(end.err.split())


def test_a_figure_of_spans_is_refused_of_texts(cli, place, tmp_path):
    end = cli("train", *place.options(tmp_path / "run", select_by="span_f1"))
    assert end.status == 2
    assert "select_by is 'span_f1', which is for labels of words" in " ".join(end.err.split())


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("audit", "--run"), "a run of labels of words, of which there is no audit and no report"),
        (("report", "--run"), "a run of labels of words, of which there is no audit and no report"),
        (
            ("predict", "--top", 2, "--data", "DATA", "--output", "OUT", "--run"),
            "top is 2, which is for labels of",
        ),
        (
            ("predict", "--probabilities", "--data", "DATA", "--output", "OUT", "--run"),
            "is for labels of whole",
        ),
        (("predict", "--engine", "ray", "--data", "DATA", "--output", "OUT", "--run"), "leave --engine out"),
    ],
)
def test_commands_for_whole_texts_are_refused(cli, run_on, tables, tmp_path, command, expected):
    run, out = run_on("conll"), tmp_path / "out.csv"
    places = {"DATA": tables / "test.conll", "OUT": out}
    end = cli(*(places.get(word, word) for word in command), run)
    assert end.status == 2, end.out
    assert expected in " ".join(end.err.split())
    assert not out.exists()
    assert not (run / "report.html").exists()


def test_a_table_of_texts_is_refused_by_a_run_of_words(cli, run_on, place, tmp_path):
    for command in (("evaluate",), ("predict", "--output", tmp_path / "out.csv")):
        end = cli(*command, "--run", run_on("conll"), "--data", place.test)
        assert end.status == 2, end.out
        assert "is no list" in " ".join(end.err.split())


def test_an_exported_model_tags_as_the_run_does(run_on, cli, tables, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra onnx")
    from onnxruntime import InferenceSession

    model, predicted = tmp_path / "model", tmp_path / "predicted.jsonl"
    run = run_on("jsonl")
    assert cli("export", "--run", run, "--output", model, "--onnx").status == 0
    assert cli("predict", "--run", run, "--data", tables / "test.jsonl", "--output", predicted).status == 0
    tokenizer, session = AutoTokenizer.from_pretrained(model), InferenceSession(model / "model.onnx")
    plain = AutoModelForTokenClassification.from_pretrained(model).eval()
    same = {"onnx": [], "plain": []}
    for row in read_table(predicted).itertuples():
        encoded = tokenizer(list(row.tokens), is_split_into_words=True, return_tensors="np")
        first = [encoded.word_ids().index(word) for word in range(len(row.tokens))]
        (logits,) = session.run(["logits"], dict(encoded))
        inputs = {name: torch.tensor(value) for name, value in encoded.items()}
        for name, found in (("onnx", logits), ("plain", plain(**inputs).logits.detach().numpy())):
            tags = [plain.config.id2label[i] for i in found[0, first].argmax(axis=1).tolist()]
            same[name] += [one == other for one, other in zip(tags, row.predicted_tags, strict=True)]
    assert same["onnx"] == same["plain"]
    assert np.mean(same["plain"]) > 0.95, "but bf16"
