"""The command line, called as a shell calls it but in this process, on a tiny model and table."""

import sys
from dataclasses import dataclass

import pytest

from clear_peft.cli import main
from tiny_text import keyword_table, tiny_checkpoint


@dataclass
class Outcome:
    status: int
    out: str
    err: str


@dataclass
class Place:
    """A model and tables that tests may read, but not change."""

    model: str
    train: str
    test: str

    def options(self, output, **more):
        """The options of ``train``, epochs few and texts short; None leaves one out."""
        options = {
            "model": self.model,
            "data": self.train,
            "output": output,
            "epochs": 2,
            "max_length": 32,
            "learning_rate": 0.01,
            "format": "quiet",
            **more,
        }
        words = []
        for name, value in options.items():
            if value is not None:
                words.append(f"--{name.replace('_', '-')}")
                words += [] if value is True else [str(value)]
        return words


def _call(words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["clear-peft", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            return end.code or 0
    raise AssertionError("main() ends the process")


@pytest.fixture
def cli(capsys):
    def call(*words):
        capsys.readouterr()
        status = _call(words)
        said = capsys.readouterr()
        return Outcome(status, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    keyword_table(96, seed=0, noise=0.2).to_csv(folder / "train.csv", index_label="id")
    keyword_table(30, seed=1).to_csv(folder / "test.csv", index=False)
    model = tiny_checkpoint(folder / "model")
    return Place(str(model), str(folder / "train.csv"), str(folder / "test.csv"))


@pytest.fixture(scope="session")
def finished(place, tmp_path_factory):
    """Run folders that tests may read, but not change, each made when it is first asked for."""
    runs = {}

    def run(method, peft, **more):
        key = method, peft, *more.items()
        if key not in runs:
            output = tmp_path_factory.mktemp("runs") / f"{method}-{peft}"
            more = {"test": place.test, "clean_label_column": "clean_label", "id_column": "id", **more}
            words = place.options(output, method=method, peft=peft, epochs=4, batch_size=8, **more)
            assert _call(["train", *words]) == 0
            runs[key] = output
        return runs[key]

    return run
