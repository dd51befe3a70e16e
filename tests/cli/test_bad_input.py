"""Wrong input: one sentence, status 2, and no file made, changed or lost."""

import os
import shutil

import pandas as pd
import pytest

from tiny_text import keyword_table


def _table(folder, frame, name="bad.csv"):
    frame.to_csv(folder / name, index=False)
    return str(folder / name)


def _text(folder, text, name="bad.csv"):
    (folder / name).write_text(text)
    return str(folder / name)


def _rows(**columns):
    return keyword_table(12, seed=0).assign(**columns)


def _labels(labels):
    return keyword_table(len(labels), seed=0).assign(label=labels)


def _model(folder, place, drop=(), **files):
    copy = folder / "model"
    shutil.copytree(place.model, copy)
    for name in drop:
        (copy / name).unlink()
    for name, content in files.items():
        (copy / name.replace("_json", ".json").replace("_safetensors", ".safetensors")).write_text(content)
    return str(copy)


def _yaml(folder, text):
    return _text(folder, text, "run.yaml")


# name: (options over the usual ones, words of the sentence)
TABLES = {
    "missing file": (lambda d, p: {"data": d / "no.csv"}, "no such file"),
    "a folder": (lambda d, p: {"data": d}, "is a folder"),
    "missing column": (lambda d, p: {"text_column": "txt"}, "has no column 'txt'"),
    "missing label column": (lambda d, p: {"label_column": "lable"}, "did you mean 'label'"),
    "semicolons in one row more": (
        lambda d, p: {"data": _text(d, "text;label\n" + "a, b;x\n" * 6 + "a;b;x\n", "bad.csv")},
        "line 8: the row has 3 cells but the header has 2",
    ),
    "no such encoding": (lambda d, p: {"encoding": "cp9"}, "no encoding 'cp9'"),
    "missing id column": (lambda d, p: {"id_column": "key"}, "has no column 'key'"),
    "one column twice": (lambda d, p: {"text_column": "label"}, "cannot be both"),
    "empty file": (lambda d, p: {"data": _text(d, "")}, "is empty"),
    "only a header": (lambda d, p: {"data": _text(d, "text,label\n")}, "no rows"),
    "broken JSONL": (lambda d, p: {"data": _text(d, "{nope\n", "bad.jsonl")}, "line 1"),
    "no UTF-8": (
        lambda d, p: {"data": [d / "x.csv", (d / "x.csv").write_bytes(b"text,label\n\xff,a\n")][0]},
        "not valid UTF-8",
    ),
    "one class": (lambda d, p: {"data": _table(d, _rows(label="a"))}, "every row has the label"),
    "classes of one row alone": (
        lambda d, p: {"data": _table(d, _labels(["a", "b"]))},
        "no class has two rows; give more rows, or a validation table",
    ),
    "empty text": (
        lambda d, p: {"data": _table(d, _rows(text=" "))},
        "the text is empty in 12 rows",
    ),
    "no strings": (
        lambda d, p: {"data": _text(d, '{"text": 1, "label": "a"}\n' * 4, "bad.jsonl")},
        "not a string but int",
    ),
    "no label": (lambda d, p: {"data": _table(d, _rows(label=""))}, "label is missing in 12 rows"),
    "ids twice": (lambda d, p: {"data": _table(d, _rows(id=1)), "id_column": "id"}, "more than once"),
    "clean labels unknown": (
        lambda d, p: {"data": _table(d, _rows(clean_label="x")), "clean_label_column": "clean_label"},
        "lack 'x'",
    ),
    "new label in validation": (lambda d, p: {"validation": _table(d, _rows(label="x"))}, "lack 'x'"),
    "new label in test": (lambda d, p: {"test": _table(d, _rows(label="x"))}, "lack 'x'"),
    "no such test file": (lambda d, p: {"test": d / "no.csv"}, "no such file"),
    "unknown hub data": (lambda d, p: {"data": "no-such-user/no-such-data"}, "cannot be loaded from the hub"),
}
MODELS = {
    "no such model": (lambda d, p: {"model": "no-such-user/no-such-model"}, "Cannot load the tokenizer"),
    "no such folder": (lambda d, p: {"model": d / "none"}, "There is no folder"),
    "an empty folder": (lambda d, p: {"model": d}, "Cannot load the tokenizer"),
    "no tokenizer": (
        lambda d, p: {"model": _model(d, p, drop=("tokenizer.json", "tokenizer_config.json"))},
        "holds no tokenizer",
    ),
    "no weights": (
        lambda d, p: {"model": _model(d, p, drop=("model.safetensors",))},
        "Cannot load the model",
    ),
    "damaged weights": (
        lambda d, p: {"model": _model(d, p, model_safetensors="x" * 99)},
        "Cannot load the model",
    ),
    "damaged config": (lambda d, p: {"model": _model(d, p, config_json="{")}, "Cannot load the tokenizer"),
    "no classification head": (
        lambda d, p: {"model": _model(d, p, config_json='{"model_type": "clip"}')},
        "no sequence-classification head",
    ),
    "unknown architecture": (
        lambda d, p: {"model": _model(d, p, config_json='{"model_type": "xyz"}')},
        "Cannot load the model",
    ),
    "wrong target": (lambda d, p: {"target_modules": "query,nope"}, "names nope"),
    "unknown PEFT option": (lambda d, p: {"peft_options": '{"rank": 8}'}, "no option rank"),
    "PEFT option of a wrong type": (lambda d, p: {"peft_options": '{"r": null}'}, "peft cannot put lora"),
    "no JSON": (lambda d, p: {"peft_options": "r=8"}, "is no JSON"),
    "no JSON object": (lambda d, p: {"peft_options": "8"}, "must be a JSON object"),
    "unknown PEFT method": (lambda d, p: {"peft": "loar"}, "There is no peft 'loar'"),
    "unknown method": (lambda d, p: {"method": "clean"}, "There is no method 'clean'"),
    "unknown preset": (lambda d, p: {"preset": "best"}, "There is no preset 'best'"),
    "prefix where it cannot be": (
        lambda d, p: {
            "peft": "prefix",
            "model": _model(
                d,
                p,
                config_json='{"model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 2}',
            ),
        },
        "prefix does not work with DistilBert",
    ),
    "texts too long": (lambda d, p: {"max_length": 65}, "give at most 64"),
    "texts too long for a prefix": (lambda d, p: {"max_length": 60, "peft": "prefix"}, "give at most 44"),
    "texts too short": (lambda d, p: {"max_length": 2}, "choose more than 2"),
}
NUMBERS = {
    "no epochs": (lambda d, p: {"epochs": 0}, "epochs is 0"),
    "no batch": (lambda d, p: {"batch_size": 0}, "batch_size is 0"),
    "negative seed": (lambda d, p: {"seed": -1}, "seed is -1"),
    "all held out": (lambda d, p: {"validation_fraction": 1}, "is 1.0: give a number above 0 and below 1"),
    "nan held out": (
        lambda d, p: {"validation_fraction": "nan"},
        "is nan: give a number above 0 and below 1",
    ),
    "negative rate": (lambda d, p: {"learning_rate": -1}, "give a number above 0"),
}
OPTIONS = {
    "no such file": (lambda d, p: {"config": d / "none.yaml"}, "no such file"),
    "YAML that holds itself": (
        lambda d, p: {"config": _yaml(d, "training: &a {x: *a}")},
        "training holds itself",
    ),
    "no YAML": (lambda d, p: {"config": _yaml(d, "a: [")}, "is not YAML"),
    "not UTF-8": (lambda d, p: {"config": [d / "r", (d / "r").write_bytes(b"\xff\xfe")][0]}, "is not YAML"),
    "no mapping": (lambda d, p: {"config": _yaml(d, "- 1")}, "holds no options"),
    "empty": (lambda d, p: {"config": _yaml(d, "")}, "holds no options"),
    "unknown key": (lambda d, p: {"config": _yaml(d, "epoch: 1\n1: 2")}, "unknown keys (1, epoch)"),
    "text for a number": (lambda d, p: {"config": _yaml(d, "epochs: ten")}, "run.yaml: epochs is 'ten'"),
    "a number out of its range": (
        lambda d, p: {"config": _yaml(d, "seed: -1")},
        "run.yaml: seed is -1: give a whole number from 0 to 4294967295.",
    ),
    "too long a number": (
        lambda d, p: {"config": _yaml(d, f"seed: 0x{'f' * 5000}")},
        "run.yaml: seed is too long a number",
    ),
    "a method that is none": (lambda d, p: {"config": _yaml(d, "method: cleen")}, "run.yaml: There is no"),
    "bool for a number": (lambda d, p: {"config": _yaml(d, "epochs: true")}, "epochs is True"),
    "number for a list": (lambda d, p: {"config": _yaml(d, "target_modules: 5")}, "target_modules is 5"),
    "numbers in a list": (lambda d, p: {"config": _yaml(d, "target_modules: [5]")}, "a list of names"),
    "list for a name": (lambda d, p: {"config": _yaml(d, "data: [a, b]")}, "data is ['a', 'b']"),
    "text for options": (lambda d, p: {"config": _yaml(d, "peft_options: r=8")}, "peft_options is 'r=8'"),
    "a date": (lambda d, p: {"config": _yaml(d, "peft_options: {r: 2024-01-01}")}, "as JSON can hold them"),
    **{
        f"training {words}": (lambda d, p, text=text: {"config": _yaml(d, f"training: {{{text}}}")}, words)
        for text, words in {
            "weight_decay: little": "training.weight_decay is 'little': give a number",
            "warm_up_epochs: long": "training.warm_up_epochs is 'long': give a number",
            "bf16: 1": "training.bf16 is 1: give true or false",
            "eval_strategy: 'no'": "What training holds does not fit",
            "save_strategy: steps": "but found - Evaluation strategy:",
            "optim: foo": "foo is not a valid OptimizerNames",
            "lr_scheduler_type: foo": "foo is not a valid SchedulerType",
            "label_names: [x]": "training cannot set label_names",
            "dataloader_num_workers: -1": "dataloader_num_workers is -1: give a number of at least 0",
            "eval_do_concat_batches: false": "training cannot set eval_do_concat_batches",
            "deepspeed: ds.json": "training cannot set deepspeed",
            "dataloader_drop_last: true": "training cannot set dataloader_drop_last",
            "learning_rate: 1.0e-3": "training cannot set learning_rate: set learning_rate beside it",
            "seed: 3": "training cannot set seed",
        }.items()
    },
    "code": (lambda d, p: {"config": _yaml(d, "data: !!python/object/apply:os.getcwd []")}, "is not YAML"),
}
OUTPUTS = {
    "a file": (lambda d, p: {"output": _text(d, "x", "file")}, "is a file"),
    "inside a file": (lambda d, p: {"output": _text(d, "x", "file") + "/run"}, "is a file"),
    "the folder of the data": (
        lambda d, p: {"output": d, "data": _table(d, keyword_table(12, seed=0))},
        "lies in the output folder",
    ),
    "somebody's folder": (lambda d, p: {"output": [d, _text(d, "x", "thesis.tex")][0]}, "is no run"),
    "a device": (lambda d, p: {"output": "/dev/null/run"}, "Cannot write"),
    "a name too long": (lambda d, p: {"output": d / ("x" * 300)}, "Cannot write"),
    "no name": (lambda d, p: {"output": ""}, "give a folder"),
    "somebody's config.yaml": (
        lambda d, p: {"output": [d, _text(d, "hydra: {}", "config.yaml")][0], "overwrite": True},
        "unknown keys (hydra)",
    ),
    "nothing to resume": (lambda d, p: {"resume": True}, "is no run folder"),
    "resume and overwrite": (lambda d, p: {"resume": True, "overwrite": True}, "give one of them"),
}
ALL = {
    f"{group}: {name}": case
    for group, cases in (
        ("table", TABLES),
        ("model", MODELS),
        ("number", NUMBERS),
        ("options", OPTIONS),
        ("output", OUTPUTS),
    )
    for name, case in cases.items()
}


STATUS = {"number: diverges": 1}  # nothing is wrong with what was given


def _snapshot(folder):
    return {p.relative_to(folder): p.is_file() and p.read_bytes() for p in sorted(folder.rglob("*"))}


def _refused(end, expected, status=2):
    assert end.status == status
    assert end.out == ""
    assert expected in end.err
    assert end.err.startswith("clear-peft: ")
    assert end.err.count("\n") == 1, end.err
    assert end.err.rstrip().endswith((".", "?"))


@pytest.mark.parametrize("case", ALL)
def test_train_refuses_in_one_sentence_and_leaves_nothing(cli, place, tmp_path, case):
    arrange, expected = ALL[case]
    options = {"output": tmp_path / "deep" / "run", **arrange(tmp_path, place)}
    before = _snapshot(tmp_path)
    end = cli("train", *place.options(options.pop("output"), **options))
    _refused(end, expected, status=STATUS.get(case, 2))
    assert _snapshot(tmp_path) == before


@pytest.mark.parametrize("case", ["table: one class", "table: new label in test", "model: wrong target"])
def test_an_earlier_run_survives_a_wrong_overwrite(cli, finished, place, tmp_path, case):
    arrange, expected = ALL[case]
    run = tmp_path / "run"
    shutil.copytree(finished("full", "lora"), run)
    options = arrange(tmp_path, place)
    before = _snapshot(tmp_path)
    end = cli("train", *place.options(run, overwrite=True, **options))
    _refused(end, expected, status=STATUS.get(case, 2))
    assert _snapshot(tmp_path) == before


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_that_diverges_fails_and_leaves_what_was_there(cli, finished, place, tmp_path, earlier):
    run = tmp_path / "run"
    if earlier:
        shutil.copytree(finished("full", "lora"), run)
    before = _snapshot(tmp_path)
    words = place.options(run, overwrite=earlier or None, learning_rate=1e30, method="full")
    _refused(cli("train", *words), "not finite at step", status=1)
    assert _snapshot(tmp_path) == before


def test_an_earlier_run_is_not_overwritten_unasked(cli, finished, place):
    run = finished("full", "lora")
    before = _snapshot(run)
    _refused(cli("train", *place.options(run)), "holds another run")
    _refused(cli("train", *place.options(run, resume=True)), "is finished")
    assert _snapshot(run) == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(cli, place, tmp_path):
    tmp_path.chmod(0o500)
    _refused(cli("train", *place.options(tmp_path / "run")), "not yours to write to")


def _without(name):
    return lambda run: (run / name).unlink()


def _write(name, text):
    return lambda run: (run / name).write_text(text)


DAMAGE = {
    "no run": ("clear", shutil.rmtree, "is no run folder"),
    "unfinished": ("clear", lambda run: shutil.rmtree(run / "adapter"), "is not finished"),
    "no adapter weights": ("clear", _without("adapter/adapter_model.safetensors"), "does not exist"),
    "damaged weights": ("clear", _write("adapter/adapter_model.safetensors", "x" * 99), "safetensors"),
    "no weights of a whole model": ("full", _without("adapter/model.safetensors"), "Cannot load the model"),
    "too many labels": ("clear", _write("adapter/labels.json", '["a", "b", "c", "d"]'), "does not fit"),
    "too many labels of a whole model": ("full", _write("adapter/labels.json", '["a", "b"]'), "Cannot load"),
    "damaged labels": ("clear", _write("adapter/labels.json", "{"), "Cannot read label names"),
    "labels that are none": ("clear", _write("adapter/labels.json", "[1, 2]"), "must be non-empty strings"),
    "config of wrong types": ("clear", _write("config.yaml", "epochs: ten"), "epochs is 'ten'"),
    "config with a gap": ("clear", _write("config.yaml", "epochs: 1"), "lacks model, data, output"),
}


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_run_is_refused(cli, finished, place, tmp_path, command, case):
    method, damage, expected = DAMAGE[case]
    run = tmp_path / "run"
    shutil.copytree(finished(method, "lora"), run)
    damage(run)
    data = tmp_path / "data.csv"
    pd.read_csv(place.test).drop(columns="label" if command == "predict" else []).to_csv(data, index=False)
    output = ["--output", tmp_path / "out.csv"] if command == "predict" else []
    end = cli(command, "--run", run, "--data", data, *output, "--format", "quiet")
    if "labels" in case and command == "evaluate" and end.status == 2 and "lack" in end.err:
        return  # the table's labels are refused first
    _refused(end, expected)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("out.txt", "names no known format"),
        ("none/out.csv", "there is no folder"),
        (".csv", "names no known format"),
    ],
)
def test_predict_refuses_an_output_before_it_works(cli, finished, place, tmp_path, output, expected):
    words = ("predict", "--run", finished("clear", "lora"), "--data", place.test, "--format", "quiet")
    _refused(cli(*words, "--output", tmp_path / output), expected)
    assert not list(tmp_path.iterdir())


def test_predict_refuses_a_table_that_has_its_columns(cli, finished, tmp_path):
    data = _table(tmp_path, _rows(confidence=1))
    words = ("predict", "--run", finished("clear", "lora"), "--data", data, "--format", "quiet")
    _refused(cli(*words, "--output", tmp_path / "out.csv"), "has 'confidence' among its columns")
