"""README and docs say what is there: their code runs, and their commands, options and links exist."""

import re
from enum import Enum
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from transformers import AutoModel

from pages import PAGES, README, ROOT, anchors, blocks, commands, links, ours
from tiny_text import keyword_table, tiny_checkpoint

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def names(pages):
    return [page.name for page in pages]


def test_ci_runs_the_readmes_test_command():
    command = next(block.strip() for block in blocks(README, "sh") if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200


def test_every_method_noise_and_grid_is_named():
    from clear_peft.baselines import METHODS
    from clear_peft.bench.grid import shipped_grids
    from clear_peft.noise import KINDS
    from clear_peft.tuners import available_methods

    page = (ROOT / "docs" / "methods.md").read_text()
    for name in [*METHODS, *KINDS, *shipped_grids(), *available_methods()]:
        assert f"`{name}`" in page, name


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page):
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        # pages that are made when the site is built
        if target.name in ("command-line.md", "settings.md"):
            continue
        assert target.exists(), link
        if anchor and anchor not in ("only-light", "only-dark"):
            assert anchor in anchors(target), link


def test_the_grid_of_the_page_is_one(tmp_path):
    from clear_peft.bench.grid import read_grid

    grid, noise = blocks(ROOT / "docs" / "own-benchmark.md", "yaml")
    path = tmp_path / "tickets.yaml"
    path.write_text(grid)
    assert len(read_grid(str(path))) == 12
    path.write_text((noise + grid).replace("[given]", "[given, sym40, pair20]"))
    assert len(read_grid(str(path))) == 36


# Shell lines


def group(command, words):
    """The command of a shell line, and the words that are left."""
    while hasattr(command, "commands"):
        while words and words[0].startswith("-"):
            words = words[1:]
        if not words:
            break
        command, words = command.commands[words[0]], words[1:]
    return command, words


def app():
    from typer.main import get_command

    from clear_peft.cli.app import app

    return get_command(app)


def check_call(words):
    if not words or set(words) <= {"--help", "--version"}:
        return
    command, words = group(app(), words)
    known = {flag: option for option in command.params for flag in option.opts}
    given = set()
    words = iter(words)
    for word in words:
        assert word in known or word in ("--help", "-h"), word
        option = known[word]
        given.add(option.name)
        if not option.is_flag:
            value = next(words)
            assert not value.startswith("--"), f"{word} {value}"
            kind = option.type_descriptor.annotation
            if isinstance(kind, type) and issubclass(kind, Enum):
                assert value in [choice.value for choice in kind], f"{word} {value}"
    lacking = {option.opts[0] for option in command.params if option.required and option.name not in given}
    assert not lacking or "config" in given, lacking


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_shell_lines_are_calls_that_exist(page):
    for words in commands(page):
        for call in ours(words):
            check_call(call)
        scripts = [word for word in words if re.fullmatch(r"(benchmarks|examples)/\w+\.py", word)]
        for script in scripts:
            # some options are those of all benchmarks
            folder = (ROOT / script).parent
            source = "".join(path.read_text() for path in folder.glob("*.py"))
            started, options = words[: words.index(script)], words[words.index(script) :]
            for option in [word for word in options if word.startswith("--")]:
                assert f'"{option}"' in source, f"{script} {option}"
            if started[0] == "accelerate":
                launcher = launch_command_parser()
                launcher.parse_args([*started[2:], script])


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_calls_in_sentences_have_options_that_exist(page):
    for code in re.findall(r"`(clear-peft [^`]*)`", page.read_text()):
        words = code.split()[1:]
        if words[0].startswith("-") or "…" in words[0] or "|" in code:
            continue
        command, words = group(app(), words)
        known = {flag for option in command.params for flag in option.opts}
        used = {word for word in words if word.startswith("--")}
        assert used <= {*known, "--help"}, code


# Python


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Without a head, as the packaged one."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("model"), positions=128)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, model):
    """A folder with what the pages name, and a tiny model wherever a model is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clear_peft.pipeline.judge.minilm", lambda: model)
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "clear-peft-demo" / "data"
    data.mkdir(parents=True)
    keyword_table(120, seed=0, noise=0.3).to_csv(data / "train.csv", index=False)
    keyword_table(30, seed=1).to_csv(data / "test.csv", index=False)
    return tmp_path


def trained(folder, model):
    """The run that a page goes on with."""
    from clear_peft.pipeline import train
    from clear_peft.run_folder import RunConfig

    train(
        RunConfig(
            model=str(model), data="clear-peft-demo/data/train.csv", output=folder, epochs=1, max_length=32
        )
    )


QUICKER = {
    '**preset("recommended"))': '**{**preset("recommended"), "num_train_epochs": 2})',
    'CleaRClassifier(peft="lora")': "CleaRClassifier(epochs=2)",
}
RUNNING = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.filterwarnings("ignore")  # of transformers and peft
@pytest.mark.parametrize("page", RUNNING, ids=names(RUNNING))
def test_python_runs(page, place, model):
    """All blocks of a page, one after the other, as somebody would type them."""
    seen: dict = {"__name__": "page"}
    code = blocks(page, "python")
    if '"runs/news/' in "".join(code):
        trained("runs/news", model)
    if '"merged/model.onnx"' in "".join(code):
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        from clear_peft.pipeline.merging import export

        export("runs/news", "onnx", onnx=True)
    for block in code:
        run = block.replace(f'"{MODEL}"', repr(str(model)))
        for old, new in QUICKER.items():
            run = run.replace(old, new)
        run = run.replace('"merged/model.onnx"', '"onnx/model.onnx"')
        exec(compile(run, page.name, "exec"), seen)
    if "issues" in seen:
        assert sorted(seen["issues"]["row"]) == list(range(120))
    for folder in ("adapter", "classifier/adapter"):
        if f'"{folder.partition("/")[0]}")' in "".join(code):
            assert (Path(folder) / "adapter_config.json").is_file()
    torch.set_num_threads(1)
