"""What is made when the site is built: two pages of reference, examples in other pages, heads of tables."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[2]
_VALUES = {int: "whole number", float: "number", Path: "path"}
_HIDDEN = {"help", "install_completion", "show_completion"}
# pages of tables that `clear-peft bench table` writes, without a head: what they are of
_TABLES = {
    "benchmark-tables.md": ("all methods", "results", ("cpu", "peft")),
    "development-tables.md": ("parts of the recipe", "development", ("ablation",)),
    "unseen-tables.md": ("unseen data", "unseen", ("unseen",)),
    "settings-tables.md": ("other settings", "settings", ("settings", "larger")),
}
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./examples/[^)]*\)")  # files that the site does not have
_TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "dict": "options by name",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, content in (("command-line.md", command_line()), ("settings.md", settings())):
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put an example in the place of its name, where this is a line of code by itself; give tables a head."""
    if page.file.src_uri in _TABLES:
        return table_head(*_TABLES[page.file.src_uri]) + markdown
    if page.file.src_uri in ("options.md", "settings.md"):
        page.meta["hide"] = ["toc"]  # one wide table
    if page.file.src_uri == "options.md":  # NAME[:CONFIG][@SPLIT] is no link
        return markdown.replace("[:CONFIG][@", "\\[:CONFIG]\\[@")
    return re.sub(
        r"^# (examples/\w+\.py)$",
        lambda name: (_ROOT / name[1]).read_text().rstrip(),
        _OUTSIDE.sub(r"\1", markdown),
        flags=re.M,
    )


def table_head(title: str, results: str, grids: tuple[str, ...]) -> str:
    """What a page of tables is of: model, machines, seeds, dates and commands, out of its records."""
    path = f"docs/{results}.jsonl"
    records = [json.loads(line) for line in (_ROOT / path).read_text(encoding="utf-8").splitlines()]
    places = [record["environment"] for record in records]
    machines = Counter(
        f"one {place['gpu']}" if place["gpu"] else f"{place['cores']} cores of an {place['processor']}"
        for place in places
    )
    dates = sorted(place["date"] for place in places)
    seeds = sorted({record["cell"]["seed"] for record in records})
    models = sorted({record["cell"]["model"] for record in records})
    named = {"package:minilm": "all-MiniLM-L6-v2"}
    counted = "; ".join(f"{name} ({count} records)" for name, count in machines.most_common())
    made = "<br>".join(
        f"`clear-peft bench run --grid {grid} --data-dir DATA --results {path}`" for grid in grids
    )
    rows = {
        "records": f"{len(records)}, one for each cell",
        "model": ", ".join(named.get(model, model.rpartition("/")[2]) for model in models),
        "hardware": counted.replace("(R)", ""),
        "seeds": f"{', '.join(map(str, seeds))}; a number in brackets says how many there are",
        "dates": f"{dates[0]} to {dates[-1]}",
        "records made by": made,
        "tables made by": f"`clear-peft bench table --results {path}`",
    }
    return "\n".join(
        [
            f"# Tables: {title}",
            "",
            "Accuracies and other shares are in %. ± is half a 95 % interval over the seeds. [Training "
            "benchmarks](benchmarks.md) says how it was measured, what `DATA` is, and what to know of the "
            "figures.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {text} |" for name, text in rows.items()),
            "",
            "",
        ]
    )


def command_line() -> str:
    """Every command with its options, as ``--help`` says them."""
    from typer.main import get_command

    from clear_peft.cli.app import app

    root = get_command(app)
    lines = [
        "# Command line",
        "",
        "This page is made of the commands themselves. `clear-peft COMMAND --help` shows the same.",
        "",
        "Exit status: 0 done, 1 failed, 2 wrong input. Ctrl-C or SIGTERM in `train` saves a checkpoint.",
        "",
        "## clear-peft",
        *_options(root),
    ]
    for name, command in _commands("clear-peft", root):
        lines += ["", f"## {name}", "", *_help(command.help or ""), "", *_options(command)]
    return "\n".join(lines) + "\n"


def _commands(name: str, group: Any) -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if getattr(command, "commands", None):
            yield from _commands(f"{name} {word}", command)
        else:
            yield f"{name} {word}", command


def _help(text: str) -> list[str]:
    """The description; examples, which are indented or marked, as code."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\b", "").strip()):
        lines = [line.strip() for line in paragraph.strip().splitlines()]
        shell = [line for line in lines if re.match(r"(\$ )?(clear-peft|torchrun) ", line)]
        if shell:
            words = [line for line in lines if line not in shell]
            found += [*words, "", "```sh", *(line.removeprefix("$ ") for line in shell), "```", ""]
        else:
            found += [" ".join(lines), ""]
    return found


def _options(command: Any) -> list[str]:
    lines: list[str] = []
    panels: dict[str, list[Any]] = {}
    for option in command.params:
        if option.name not in _HIDDEN and not getattr(option, "hidden", False):
            panels.setdefault(getattr(option, "rich_help_panel", None) or "Options", []).append(option)
    for panel, options in panels.items():
        lines += ["", f"**{panel}**", "", "| option | value | default | meaning |", "|---|---|---|---|"]
        lines += [_row(option) for option in options]
    return lines


def _row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else _value(option)
    default = "" if option.is_flag or option.default in (None, (), []) else f"`{_plain(option.default)}`"
    return (
        f"| {names} | {value} | {'required' if option.required else default} | {_cell(option.help or '')} |"
    )


def _value(option: Any) -> str:
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{_plain(choice)}`" for choice in kind)
    parts = [option.metavar or next((word for of, word in _VALUES.items() if kind is of), "text")]
    parts += [] if option.min is None else [f"at least {option.min}"]
    parts += [] if option.max is None else [f"at most {option.max}"]
    parts += ["may be repeated"] if option.multiple else []
    return _cell(", ".join(parts))


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    return str(getattr(value, "value", value))


def _cell(text: str) -> str:
    text = re.sub(r"\\([\[\]])", r"\1", " ".join(text.split()))  # what is escaped for the terminal
    parts = text.replace("``", "`").replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"([*_<\[])", r"\\\1", part) for part in parts[::2]]  # outside code
    return "`".join(parts)


def settings() -> str:
    """The settings of ``CleaRConfig`` that transformers does not have."""
    from transformers import TrainingArguments

    from clear_peft.trainer import config

    theirs = {setting.name for setting in fields(TrainingArguments)}
    meanings = _arguments(config.CleaRConfig.__doc__ or "")
    ranges: dict[str, tuple[float, float]] = config._RANGES
    choices = {
        "label_estimator": config.ESTIMATORS,
        "loss_mixture": config.MIXTURES,
        "scoring_gates": config.GATES_IN_SCORING,
        "loss": config.LOSSES,
    }
    lines = [
        "# Settings of `CleaRConfig`",
        "",
        "`CleaRConfig` is `transformers.TrainingArguments` with these settings besides. On the command line "
        "they are given as JSON: `--training '{\"max_gate_prob\": 0.9}'`. The defaults are those of "
        "`--preset recommended`.",
        "",
        "| setting | type | default | range | meaning |",
        "|---|---|---|---|---|",
    ]
    for setting in fields(config.CleaRConfig):
        if setting.name in theirs:
            continue
        assert setting.default is not MISSING
        kind = " or ".join(
            _TYPES.get(part.strip().partition("[")[0], part.strip())
            for part in getattr(setting.type, "__name__", str(setting.type)).split("|")
            if part.strip() != "None"
        )
        limits = ", ".join(f"`{name}`" for name in choices.get(setting.name, ()))
        if setting.name in ranges:
            low, high = ranges[setting.name]
            limits = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
        default = "" if setting.default is None else f"`{setting.default}`"
        meaning = _cell(meanings[setting.name])
        lines.append(f"| `{setting.name}` | {kind} | {default} | {limits} | {meaning} |")
    return "\n".join(lines) + "\n"


def _arguments(docstring: str) -> dict[str, str]:
    """The section Args of a docstring, by name."""
    section = re.search(r"^ *Args:\n(.*)", docstring, re.S | re.M)
    assert section is not None
    parts = re.split(r"^ {8}(\w+): ", section[1], flags=re.M)[1:]
    return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}
