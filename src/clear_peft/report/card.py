"""The model card: what a stranger has to know about an adapter, as the ``README.md`` beside it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from clear_peft.audit import Audit, confused_pairs, to_check
from clear_peft.report.page.summary import percent
from clear_peft.report.record import RunRecord
from clear_peft.report.text import code_span, one_line

# a name, and of a data set perhaps a configuration and a split
_HUB_NAME = re.compile(
    r"([A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?::[\w.-]+)?(?:@[\w.%:+\[\]-]+)?", re.ASCII
)
_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}
_LABELS = 200
_PAIRS = 5
# what peft does not know; None is the key where all weights were trained
_OUR_FORMATS = {"adapter", "apt"}
_HEADINGS = {None: "Text classifier", "adapter": "Bottleneck adapter", "apt": "Adaptive prefix"}
_NEEDS = {
    None: "With plain transformers.",
    "adapter": "PEFT has no bottleneck adapters: this one has its own format and needs clear-peft.",
    "apt": "PEFT's prefixes have no gates: this one has its own format and needs clear-peft.",
}

_PLAIN_PEFT = (
    "It is an ordinary PEFT adapter and needs nothing but PEFT. The number of classes and their names are "
    "given to the model, as below: AutoPeftModelForSequenceClassification alone does not find them. "
    "`clear-peft export` merges adapter and model into one that knows them."
)

# of one label a row, and of several: figures by their name in metrics.json
_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
_FIGURES_OF_SETS = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "mean_average_precision": "mean average precision",
}
_FIGURES_OF_WORDS = {"accuracy": "accuracy of words", "span_f1": "F1 of spans"}
# what the hub calls them
_KINDS = {
    "span_f1": "f1",
    "accuracy": "accuracy",
    "micro_f1": "f1",
    "macro_f1": "f1",
    "mean_average_precision": "average_precision",
}

_CITATION = """\
@inproceedings{kim-etal-2024-clear,
  title = {{CleaR}: Towards Robust and Generalized Parameter-Efficient Fine-Tuning for Noisy Label Learning},
  author = {Kim, Yeachan and Kim, Junho and Lee, SangKeun},
  booktitle = {Proceedings of the 62nd Annual Meeting of the Association for Computational Linguistics},
  year = {2024},
  note = {arXiv:2411.00873},
}"""


def model_card(record: RunRecord, labels: Sequence[str]) -> str:
    """Make the model card of a finished run, or of a classifier, whose ``data`` is None.

    Args:
        record: The run, with metrics; its audit may be missing.
        labels: Names of the classes, in the order of their ids.

    Returns:
        YAML metadata as the hub reads it, and Markdown. What comes from data, names of labels and files, is
        shown as inline code and cannot be anything else; of paths only the last part is given.
    """
    config, metrics = record.config, record.metrics or {}
    heading = _HEADINGS.get(_format(config, metrics), "PEFT adapter")
    sections = [
        f"---\n{_metadata(record).to_yaml()}\n---",
        f"# {heading}, trained on labels that may be wrong",
        f"It {_task(metrics, len(labels))}, and was trained with clear-peft on a table of which some "
        "labels may be wrong.",
        "## Training",
        _bullets(_training(record)),
        f"Classes, in the order of their ids: {_listed(labels)}.",
        "## Results",
        _results(config, metrics),
        "## The labels that it was trained on",
        *_doubts(metrics, record.audit),
        "## Use",
        _use(config, metrics),
        "## Limitations",
        _bullets(_limitations(metrics)),
        "## Versions",
        _versions(metrics),
        "## Citation",
        f"clear-peft implements clean routing; if you use it in research, please cite:\n\n"
        f"```bibtex\n{_CITATION}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _metadata(record: RunRecord) -> ModelCardData:
    """What the hub reads; language and licence are left out, as a run does not know them."""
    config, metrics = record.config, record.metrics or {}
    peft, base, data = _peft(metrics), hub_name(config["model"]), hub_name(config["data"] or "")
    relation = "finetune" if peft is None else "adapter"
    library = "transformers" if peft is None else "peft"
    tags = [] if base is None else [f"base_model:{relation}:{base}"]
    return ModelCardData(
        base_model=base,
        base_model_relation=None if base is None else relation,
        library_name="clear-peft" if _format(config, metrics) in _OUR_FORMATS else library,
        pipeline_tag=_pipeline(metrics),
        tags=[*tags, *([] if peft is None else [peft]), "clear-peft", "noisy-labels"],
        datasets=None if data is None else [data],
        metrics=list(dict.fromkeys(_KINDS[name] for name in _figures(metrics))),
        model_name=one_line(record.name, 100) or "adapter",
        eval_results=_eval_results(config, metrics),
    )


def _task(metrics: Mapping[str, Any], labels: int) -> str:
    if _several(metrics):
        return f"says which of {labels} labels a text has, if any"
    if _words(metrics):
        return f"gives each word of a text one of {labels} tags"
    return f"sorts texts into {labels} classes"


def _figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    if _words(metrics):
        return _FIGURES_OF_WORDS
    return _FIGURES_OF_SETS if _several(metrics) else _FIGURES


def _several(metrics: Mapping[str, Any]) -> bool:
    """Whether a text may have several labels, or none."""
    return bool(metrics.get("several_labels"))


def _words(metrics: Mapping[str, Any]) -> bool:
    """Whether each word of a text has a label."""
    return bool(metrics.get("labels_of_words"))


def _pipeline(metrics: Mapping[str, Any]) -> str:
    return "token-classification" if _words(metrics) else "text-classification"


def _eval_results(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[EvalResult] | None:
    """What was measured on the test table."""
    test = metrics.get("test")
    if not test or not config.get("test"):
        return None
    table = hub_name(config["test"]) or _last(config["test"])
    return [
        EvalResult(_pipeline(metrics), table, table, _KINDS[name], test[name], metric_name=shown)
        for name, shown in _figures(metrics).items()
        if test.get(name) is not None
    ]


def _epochs(record: RunRecord) -> str:
    asked, before = record.config["epochs"], record.warm_up
    if before is None:
        return f"{asked} asked for"
    return f"{before} to find wrong labels, then {asked - before} after the restart"


def _training(record: RunRecord) -> list[str]:
    config, metrics = record.config, record.metrics or {}
    peft, rows = _peft(metrics), metrics.get("rows") or {}
    method = code_span(metrics.get("method") or config["method"])
    if config["method"] == "clear":
        method += f" (clean routing, preset {code_span(config['preset'])})"
    items = [
        f"Base model: {_source(config['model'])}{_precision(config)}",
        f"Table: {_source(config['data'])}" + _counts(rows),
        f"Method: {method}",
        "All weights were trained" if peft is None else f"PEFT method: {code_span(peft)}",
        f"Epochs: {_epochs(record)}, epoch {metrics['selected_epoch']} selected on the validation rows",
        f"Rows per step: {metrics.get('rows_per_step', config['batch_size'])}; seed: {config['seed']}",
        f"Tokens per text: {_length(config)}{_cut(metrics)}",
    ]
    if config.get("learning_rate") is not None:
        items.append(f"Peak learning rate: {config['learning_rate']:g}")
    for name, what in (("peft_options", "PEFT options"), ("training", "Further settings")):
        if config.get(name):
            items.append(f"{what}: {code_span(json.dumps(config[name], default=str), 500)}")
    return items


def _precision(config: Mapping[str, Any]) -> str:
    """In which precision the base model was, where it was not float32, and to how many bits quantized."""
    dtype, quantization = config.get("dtype", "float32"), config.get("quantization")
    parts = [] if dtype == "float32" else [f"dtype {code_span(dtype)}"]
    if quantization:
        parts.append(f"its linear layers quantized ({code_span(quantization)}, bitsandbytes)")
    return "".join(f", {part}" for part in parts)


def _length(config: Mapping[str, Any]) -> str:
    at_most = f"at most {config['max_length']}"
    return f"{at_most}, the last of longer texts" if config.get("long_texts") == "tail" else at_most


def _cut(metrics: Mapping[str, Any]) -> str:
    """How many training texts are longer than the model reads."""
    cut, rows = (metrics.get("cut_texts") or {}).get("train"), (metrics.get("rows") or {}).get("train")
    return f" ({cut:,} of {rows:,} training texts are longer and were cut)" if cut and rows else ""


def _results(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    figures = _figures(metrics)
    lines = [f"| rows | labels | {' | '.join(figures.values())} |", f"|---|---{'|---' * len(figures)}|"]
    rows = metrics.get("rows") or {}
    for part, labels in (("test", "as in the test table"), ("validation", "as given, which may be wrong")):
        measured = metrics.get(part)
        if measured:
            count = rows.get(part)
            name = part if count is None else f"{part} ({count:,})"
            shown = ["–" if measured.get(figure) is None else percent(measured[figure]) for figure in figures]
            lines.append(f"| {name} | {labels} | {' | '.join(shown)} |")
    notes = [
        "The validation rows carry doubtful labels, like the training rows: a model that is right where they "
        f"are wrong counts as wrong there, so this {next(iter(figures.values()))} tells epochs apart; it "
        "does not say how often the model is right."
    ]
    if metrics.get("test"):
        notes.insert(0, f"Test table: {_source(config['test'])}; nothing was chosen on it.")
    return "\n".join(lines) + "\n\n" + " ".join(notes)


def _doubts(metrics: Mapping[str, Any], audit: Audit | None) -> list[str]:
    if _several(metrics):
        return [
            f"Estimated share of given labels that are wrong: {percent(metrics['wrong_estimate'])}. "
            f"Estimated share of right labels that are missing: {percent(metrics['missing_estimate'])}."
        ]
    rate = metrics["noise_rate_estimate"] if audit is None else audit.noise_rate
    estimate = f"Estimated share of wrong labels: {percent(rate)}"
    if audit is None:
        return [f"{estimate}."]
    listed = int(to_check(audit.issues)["is_label_issue"].sum())
    share = audit.expected_precision
    precise = "" if share is None else f"; by the same estimate {percent(share)} of these are wrong"
    texts = [
        f"{estimate} ({audit.said_interval(percent)}). Of "
        f"{len(audit.issues):,} rows, {listed:,} are listed as label issues: those whose label is right with "
        f"a probability below {audit.threshold:g}{precise}. The list itself is not part of this folder.",
        audit.predictions,
    ]
    pairs = confused_pairs(audit.joint, audit.labels, len(audit.issues), limit=_PAIRS)
    if len(pairs):
        texts.append("Classes most often taken for each other, by this estimate:")
        texts.append(
            _bullets(
                f"{code_span(true)} labelled {code_span(given)}: about {rows:,.0f} rows"
                for true, given, rows in zip(pairs["true"], pairs["given"], pairs["rows"], strict=True)
            )
        )
    return texts


def _use(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    peft, base = _format(config, metrics), hub_name(config["model"])
    code = ", trust_remote_code=True" if config.get("trust_remote_code") else ""
    bits = ", BitsAndBytesConfig" if config.get("quantization") else ""
    folder = "adapter" if peft is not None else "model"
    several, words = _several(metrics), _words(metrics)
    of_sets = '["labels"]' if several or words else ""
    auto = f"AutoModelFor{'Token' if words else 'Sequence'}Classification"
    loading = [
        f'labels = json.loads(({folder} / "labels.json").read_text(encoding="utf-8")){of_sets}',
        f"tokenizer = AutoTokenizer.from_pretrained({folder}{code})",
    ]
    if peft is None:
        loading.append(f"model = {auto}.from_pretrained(model{code}).eval()")
    else:
        loading += [
            f"base = {auto}.from_pretrained(",
            f"    {json.dumps(base or 'path/to/the/base/model')},",
            "    num_labels=len(labels),",
            "    id2label=dict(enumerate(labels)),",
            "    label2id={name: i for i, name in enumerate(labels)},",
            *(['    problem_type="multi_label_classification",'] if several else []),
            "    pad_token_id=tokenizer.pad_token_id,",
            f"    dtype={_dtype(config)},",
            *_quantization(config, metrics),
            f"    ignore_mismatched_sizes=True{code},",
            ")",
            "model = load_adapter(base, adapter)"
            if peft in _OUR_FORMATS
            else "model = PeftModel.from_pretrained(base, adapter).eval()",
        ]
    ours = "from clear_peft.tuners import load_adapter"
    imports = ours if peft in _OUR_FORMATS else "from peft import PeftModel"
    lines = [
        "import json",
        "from pathlib import Path",
        "",
        "import torch",
        *([] if peft is None else [imports]),
        f"from transformers import {auto}, AutoTokenizer{bits}",
        "",
        f'{folder} = Path("path/to/this/folder")',
        *loading,
        *_predicting(config, several=several, words=words),
    ]
    needs = _NEEDS.get(peft, _PLAIN_PEFT.replace("Sequence", "Token") if words else _PLAIN_PEFT)
    return "\n".join([needs, "", "```python", *lines, "```"])


def _predicting(config: Mapping[str, Any], *, several: bool, words: bool) -> list[str]:
    """Lines that print what a model says of a text."""
    cut = f'truncation=True, max_length={config["max_length"]}, return_tensors="pt"'
    if words:
        return [
            'words = ["a", "text"]',
            f'batch = tokenizer(" ".join(words), {cut})',
            "with torch.no_grad():",
            "    predicted = model(**batch).logits[0].argmax(dim=1).tolist()",
            "starts = [sum(map(len, words[:i])) + i for i in range(len(words))]",
            "print([labels[predicted[batch.char_to_token(start)]] for start in starts])",
        ]
    return [
        "batch = tokenizer(",
        f'    ["a text"], padding=True, {cut}',
        ")",
        "with torch.no_grad():",
        *(
            [
                "    probability = model(**batch).logits.sigmoid()",
                "print([[labels[i] for i in row.nonzero().flatten().tolist()] for row in probability > 0.5])",
            ]
            if several
            else [
                "    predicted = model(**batch).logits.argmax(dim=1)",
                "print([labels[i] for i in predicted.tolist()])",
            ]
        ),
    ]


def _dtype(config: Mapping[str, Any]) -> str:
    dtype = config.get("dtype", "float32")
    return json.dumps(dtype) if dtype == "auto" else f"torch.{dtype}"


def _quantization(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """The argument by which a base model is quantized as it was, in lines; none where it was not."""
    quantization = config.get("quantization")
    if not quantization:
        return []
    return [
        "    quantization_config=BitsAndBytesConfig(",
        f"        load_in_{quantization}=True,",
        *(['        bnb_4bit_quant_type="nf4",'] if quantization == "4bit" else []),
        f"        llm_int8_skip_modules={json.dumps(metrics['not_quantized'])},",
        "    ),",
    ]


def _limitations(metrics: Mapping[str, Any]) -> list[str]:
    items = [
        "It was made for texts like those of its table; of other texts, too, it says which labels they have."
        if _several(metrics) or _words(metrics)
        else "It was made for texts like those of its table, each of exactly one of its classes; for other "
        "texts it names one of them too.",
        "Which labels are wrong was estimated by the model itself. Where many labels of a class are wrong in "
        "the same way, it may have learnt them, and the share of wrong labels is then underestimated.",
        "Its confidences were not calibrated.",
    ]
    if not metrics.get("test"):
        items.insert(0, "It was not measured on checked labels: measure it before you rely on it.")
    return items


def _versions(metrics: Mapping[str, Any]) -> str:
    versions = metrics.get("versions") or {}
    return ", ".join(f"{name} {code_span(version, 40)}" for name, version in versions.items()) or "not known"


def _format(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str | None:
    """The PEFT method whose files a run has: MetaPEFT saves those of what carries its scales."""
    peft = _peft(metrics)
    carrier = (config.get("peft_options") or {}).get("on")
    return "adapter" if peft == "metapeft" and carrier == "adapter" else peft


def _peft(metrics: Mapping[str, Any]) -> str | None:
    """The PEFT method; None where all weights were trained."""
    return metrics.get("peft")


def hub_name(source: str) -> str | None:
    """The name of a model or a data set on the hub; None of a file or folder."""
    match = _HUB_NAME.fullmatch(source)
    if match is None or Path(source).exists() or Path(match[1]).suffix.lower() in _TABLES:
        return None
    return match[1]


def _source(name: str | None) -> str:
    """A model or table by its name on the hub, or by the last part of its path; None is in no file."""
    if name is None:
        return "rows in memory"
    if hub_name(name) is not None:
        return code_span(name)
    return f"{code_span(_last(name))} (a local file or folder)"


def _last(path: str) -> str:
    return one_line(re.split(r"[/\\]", path.rstrip("/\\"))[-1], 100) or "table"


def _counts(rows: Mapping[str, Any]) -> str:
    parts = [f"{rows[part]:,} {part}" for part in ("train", "validation") if rows.get(part) is not None]
    return f"; rows: {', '.join(parts)}" if parts else ""


def _listed(labels: Sequence[str]) -> str:
    more = len(labels) - _LABELS
    shown = ", ".join(map(code_span, labels[:_LABELS]))
    return f"{shown} and {more} more, all in `labels.json`" if more > 0 else shown


def _bullets(items: Any) -> str:
    return "\n".join(f"- {item}" for item in items)
