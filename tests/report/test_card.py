"""The model card: what the hub reads, what people read, and what data cannot do to either."""

import re

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from records import issues_of, metrics_of

from clear_peft.audit import Audit
from clear_peft.report import RunRecord
from clear_peft.report.card import model_card
from clear_peft.report.text import code_span

CONFIG = {
    "model": "someone/encoder",
    "data": "../tables/tickets.csv",
    "test": "/data/checked.parquet",
    "method": "clear",
    "preset": "recommended",
    "peft": "lora",
    "peft_options": {"r": 8},
    "training": {},
    "epochs": 6,
    "batch_size": 32,
    "learning_rate": None,
    "max_length": 128,
    "seed": 3,
    "trust_remote_code": False,
}
HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "``` \n# heading\n```",
    "`",
    "[x](javascript:alert(1))",
    "<!-- ",
    "-->\n\n---\nbase_model: evil\n---",
    "=cmd()",
    "https://evil.example",
    "\u202eright to left",
    "\0",
]


def audit_of(labels, rows=40):
    ids = np.arange(rows)
    given, predicted = ids % len(labels), (ids // 2) % len(labels)
    clean = np.where(given == predicted, 0.9, 0.2)
    joint = np.zeros((len(labels), len(labels)))
    np.add.at(joint, (predicted, given), 1 / rows)
    return Audit(
        issues=issues_of([f"text {i}" for i in ids], given, predicted, clean, labels=labels),
        labels=list(labels),
        noise_rate=0.3,
        noise_rate_interval=(0.25, 0.36),
        joint=joint,
        threshold=0.5,
        expected_precision=0.8,
        predictions="These are somebody's predictions.",
    )


def card(labels=("a", "b"), *, metrics=None, audit=True, name="run", **config):
    found = metrics_of(3) | (metrics or {})
    record = RunRecord(name, CONFIG | config, [], found, audit_of(labels) if audit else None)
    return model_card(record, labels).replace("\N{NO-BREAK SPACE}", " ")


def test_the_hub_reads_it():
    data = ModelCard(card()).data
    assert data.base_model == "someone/encoder"
    assert (data.library_name, data.pipeline_tag) == ("peft", "text-classification")
    assert {"base_model:adapter:someone/encoder", "lora"} <= set(data.tags)
    assert data.language is None
    assert data.datasets is None, "a file is no data set of the hub"
    results = {result.metric_type: result for result in data.eval_results}
    assert results["accuracy"].metric_value == metrics_of(3)["test"]["accuracy"]
    assert results["f1"].metric_value == metrics_of(3)["test"]["macro_f1"]
    assert results["f1"].dataset_name == "checked.parquet"


@pytest.mark.parametrize(("carrier", "loads"), [("lora", "PeftModel.from"), ("adapter", "load_adapter(")])
def test_metapeft_is_loaded_as_what_carries_its_scales(carrier, loads):
    text = card(metrics={"peft": "metapeft"}, peft="metapeft", peft_options={"on": carrier})
    assert loads in text
    assert ("PEFT has no bottleneck adapters" in text) == (carrier == "adapter")
    assert ModelCard(text).data.library_name == ("clear-peft" if carrier == "adapter" else "peft")
    assert "metapeft" in ModelCard(text).data.tags


def test_rows_of_a_step_are_those_of_all_processes():
    assert "Rows per step: 64;" in card(metrics={"rows_per_step": 64})
    assert "Rows per step: 32;" in card(), "a run of an older version"


def test_without_test_rows_nothing_is_claimed():
    text = card(metrics={"test": None}, test=None)
    assert ModelCard(text).data.eval_results is None
    assert "not measured on checked labels" in text
    assert "| test" not in text


def test_data_of_the_hub_is_named_and_a_folder_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    text = card(data="someone/news:en@train", model="encoder")
    data = ModelCard(text).data
    assert data.datasets == ["someone/news"]
    assert data.base_model is None
    assert not [tag for tag in data.tags if tag.startswith("base_model")]
    assert "`encoder` (a local file or folder)" in text
    assert '"path/to/the/base/model"' in text


@pytest.mark.parametrize("path", ["/home/ann/models/x", "../x", "C:\\models\\x"])
def test_paths_stay_private(path):
    text = card(model=path, data=path + ".csv")
    assert path not in text
    assert "`x` (a local" in text
    assert "base_model" not in ModelCard(text).data.to_dict()


def test_what_a_reader_wants_to_know():
    text = card(("cats", "dogs"))
    for said in ("`cats`, `dogs`", "95 % interval 25.0 % to 36.0 %", "somebody's predictions", "1,602 train"):
        assert said in text, said
    assert re.search(r"\| test \(445\) \| .* \| 91.2 % \| 90.8 % \|", text)
    assert re.search(r"\| validation \(178\) \| as given, which may be wrong \| 57.1 %", text)
    assert "Of 40 rows, 20 are listed" in text
    assert "`cats` labelled `dogs`: about 10 rows" in text
    assert "`transformers`" not in text
    assert "transformers `5.23.0`" in text


def test_epochs_before_a_fresh_start_are_told():
    assert "Epochs: 6 asked for, epoch 3 selected" in card()
    epochs = [{"epoch": 1}, {"epoch": 2, "restarts": True}, {"epoch": 3}]
    text = model_card(RunRecord("run", CONFIG, epochs, metrics_of(3), None), ("a", "b"))
    assert "Epochs: 2 to find wrong labels, then 4 after the restart, epoch 3 selected" in text


def test_without_an_audit_the_estimate_stands_alone():
    text = card(audit=False)
    assert "Estimated share of wrong labels: 39.8 %." in text
    assert "interval" not in text


@pytest.mark.parametrize(
    ("peft", "library", "relation", "said", "unsaid"),
    [
        ("lora", "peft", "adapter", "PeftModel.from_pretrained(base, adapter)", "clear_peft.tuners"),
        ("adapter", "clear-peft", "adapter", "load_adapter(base, adapter)", "PeftModel"),
        ("apt", "clear-peft", "adapter", "load_adapter(base, adapter)", "PeftModel"),
        (None, "transformers", "finetune", "from_pretrained(model)", "PeftModel"),
    ],
)
def test_how_to_load_it_depends_on_the_method(peft, library, relation, said, unsaid):
    text = card(metrics={"peft": peft})
    assert ModelCard(text).data.library_name == library
    assert ModelCard(text).data.to_dict()["base_model_relation"] == relation
    assert said in text
    assert unsaid not in text
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    compile(code, "card", "exec")


def test_code_of_a_model_runs_only_where_it_was_allowed():
    assert "trust_remote_code" not in card()
    code = re.search(r"```python\n(.*?)```", card(trust_remote_code=True), re.S)[1]
    assert code.count("trust_remote_code=True") == 2
    compile(code, "card", "exec")


# Reads as the hub and GitHub do: HTML passes, links are made of addresses, tables of pipes.
READER = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable(["table", "strikethrough"])


def structure(text):
    """Every element of a page but its text, and the text of code."""
    inline = [child for token in READER.parse(text) for child in token.children or ()]
    kinds = [token.type for token in (*READER.parse(text), *inline)]
    code = [token.content for token in inline if token.type == "code_inline"]
    return kinds, code


TEXTS = st.one_of(st.text(min_size=1, max_size=40).filter(str.strip), st.sampled_from(HOSTILE))


@given(st.one_of(TEXTS, st.just("\ud800")))
def test_a_code_span_is_one_span_on_one_line(text):
    kinds, code = structure(f"- before {code_span(text)} after")
    assert kinds == structure("- before `x` after")[0]
    assert len(code) == 1
    assert code_span(text).splitlines() == [code_span(text)]


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=4, unique=True), TEXTS)
def test_nothing_breaks_out_of_the_card(labels, name):
    hostile = card(labels, name=name, data=name, test=name, peft_options={"r": name})
    tame = card(
        [f"l{i}" for i in range(len(labels))], name="n", data="n.csv", test="n.csv", peft_options={"r": 1}
    )
    body = [re.split(r"^---$", text, maxsplit=2, flags=re.M)[2] for text in (hostile, tame)]
    assert structure(body[0])[0] == structure(body[1])[0]
    assert set(ModelCard(hostile).data.to_dict()) - {"datasets"} == set(ModelCard(tame).data.to_dict())
    hostile.encode("utf-8")


def test_very_many_labels_are_not_all_listed():
    text = card([f"class {i}" for i in range(1000)])
    assert "`class 199` and 800 more, all in `labels.json`" in text


def test_metadata_is_plain_yaml():
    head = card().split("---\n")[1]
    assert isinstance(yaml.safe_load(head), dict)
