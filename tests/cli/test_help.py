"""Help pages and refusals: whole, quick, and with examples that are commands."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from clear_peft.cli.app import app
from clear_peft.cli.examples import EXAMPLES
from clear_peft.cli.output import Output, table_of

HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "sklearn", "ray"}


def _commands(command, words=()):
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*words, name))


COMMANDS = dict(_commands(get_command(app)))
# an option that is not of one command stands under "Options"
SHARED = {"--help", "--config"}


def _calls(*lines):
    """What a process that has run these commands has imported, and how they ended."""
    code = (
        "import sys\n"
        "from clear_peft.cli import main\n"
        f"for words in {[shlex.split(line) for line in lines]}:\n"
        "    sys.argv = ['clear-peft', *words]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        print('status', end.code or 0)\n"
        "print('modules', *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    return (
        set(lines[-1].split()),
        [int(line[7:]) for line in lines if line.startswith("status ")],
        done.stderr,
    )


@pytest.fixture
def page(cli, monkeypatch):
    """The help page of a command, no text of it wrapped."""
    monkeypatch.setenv("COLUMNS", "2000")
    return lambda words: cli(*words, "--help").out


@pytest.mark.parametrize("words", COMMANDS)
def test_a_page_is_whole_and_ends_with_examples(page, words):
    command, shown = COMMANDS[words], page(words)
    children = getattr(command, "commands", {}).values()
    texts = [described.help for described in (command, *command.params, *children)]
    assert len(texts) > 1
    for text in filter(None, texts):
        assert " ".join(text.split()) in " ".join(shown.split())
    examples = [line.strip() for line in shown.rpartition("Examples:")[2].splitlines() if line.strip()]
    assert 1 <= len(examples) <= 3
    assert examples == list(EXAMPLES[" ".join(words)])


def test_square_brackets_are_shown(page):
    assert "NAME[:CONFIG][@SPLIT]" in page(("train",))


def test_square_brackets_are_shown_in_what_a_command_says(capsys):
    text = "pip install 'clear-peft[demo]'; [bold]not bold[/bold]"
    out = Output()
    out.stage(text)
    out.note(text)
    out.error(text)
    out.result({}, [text])
    out.tables({}, [table_of("title", ["text"], [(text,)])], [text])
    said = capsys.readouterr()
    assert (said.err.count(text), said.out.count(text)) == (3, 3)


@pytest.mark.parametrize("words", COMMANDS)
def test_options_are_in_panels(words):
    for option in COMMANDS[words].params if words else ():
        assert option.rich_help_panel or SHARED & set(option.opts), option.opts


def test_examples_are_of_commands_that_exist():
    assert set(EXAMPLES) == {" ".join(words) for words in COMMANDS}


@pytest.mark.parametrize("example", sorted({line for lines in EXAMPLES.values() for line in lines}))
def test_an_example_is_a_command(example, monkeypatch):
    program, *words = shlex.split(example)
    assert program == "clear-peft"
    command = COMMANDS[()]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    if "--config" not in words:  # which reads a file
        command.make_context("clear-peft", words, obj=Output())


def test_help_imports_nothing_heavy():
    modules, statuses, _ = _calls(*(f"{' '.join(words)} --help" for words in COMMANDS))
    assert statuses == [0] * len(COMMANDS)
    assert not modules & {*HEAVY, "numpy", "pandas", "scipy", "yaml"}


def test_bad_input_is_refused_before_anything_heavy_is_imported(place, tmp_path):
    (tmp_path / "empty.csv").write_text("text,label\n")
    (tmp_path / "table.csv").write_text("text,label\na,b\nc,d\n")
    (tmp_path / "run.yaml").write_text("model: m\noutput: o\ndata: d\nepochs: ten\n")
    (tmp_path / "odd.yaml").write_text("model: m\noutput: o\ndata: d\ntraining: {weigth_decay: 0.1}\n")
    table, output = tmp_path / "table.csv", tmp_path / "out.csv"
    train = f"train --model m --output {tmp_path / 'run'}"
    lines = {
        f"{train} --data {place.train} --text-column body": "no column 'body'",
        f"{train} --data {tmp_path / 'none.csv'}": "no such file",
        f"{train} --data {tmp_path / 'empty.csv'}": "no rows",
        f"train --config {tmp_path / 'run.yaml'}": "epochs is 'ten'",
        f"train --config {tmp_path / 'odd.yaml'}": "CleaRConfig has no weigth_decay",
        f"scan --data {place.train} --label-column topic": "no column 'topic'",
        f"scan --data {place.train} --output {place.train}": "is a file",
        f"predict --run {tmp_path} --data {place.test} --output {output}": "is no run folder",
        f"predict --run {tmp_path} --data d --output {output} --engine ray": "is no run folder",
        f"scan --data {place.train} --engine ray": "is no folder of Parquet files",
        f"scan --data {tmp_path} --engine ray --group-column who": "knows no --group-column",
        f"scan --data {place.train} --gpus 1": "add --engine ray",
        f"evaluate --run {tmp_path} --data {place.test}": "is no run folder",
        f"audit --run {tmp_path / 'none'}": "is no run folder",
        f"report --run {tmp_path / 'none'}": "is no run folder",
        f"noise --data {table} --kind pair --rate 2 --output {output}": "rate is 2",
        f"demo --output {place.train}": "is a file",
        f"bench run --grid none --results {tmp_path / 'r.jsonl'}": "no grid 'none'",
    }
    modules, statuses, said = _calls(*lines)
    assert statuses == [2] * len(lines), said
    sentences = [line for line in said.splitlines() if line.startswith("clear-peft: ")]
    assert len(sentences) == len(lines)
    for words, sentence in zip(lines.values(), sentences, strict=True):
        assert words in sentence
    assert not modules & HEAVY


def test_bash_completes_commands_and_choices():
    program = Path(sys.executable).with_name("clear-peft")
    asked = {"tr": "train", "train --method selc": "selc"}
    script = f'eval "$({program} --show-completion bash)"\n' + "".join(
        f"COMP_WORDS=(clear-peft {words}); COMP_CWORD={len(words.split())}; "
        f'_clear_peft_completion {program}; echo "${{COMPREPLY[*]}}"\n'
        for words in asked
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines() == list(asked.values()), done.stderr
