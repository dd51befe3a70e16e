"""Run folders that a stranger has had in hand."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from clear_peft.pipeline import train
from clear_peft.pipeline.progress import Silent
from clear_peft.run_folder import RunConfig
from tiny_text import keyword_table, tiny_checkpoint


class _Interrupt(Silent):
    def epoch(self, figures):
        if figures["epoch"] == 3:
            raise KeyboardInterrupt


class Scene:
    """A copy of a run folder to be tampered with, and precious files outside of it."""

    def __init__(self, folder: Path, original: Path, data: str):
        self.run, self.outside, self.data = folder / "run", folder / "outside", data
        shutil.copytree(original, self.run)
        (self.outside / "folder").mkdir(parents=True)
        (self.outside / "secret.txt").write_text("precious")
        self.proof = folder / "code-ran"
        self.set_config(output=str(self.run))
        self._before = self._snapshot()

    def _snapshot(self):
        return {path: path.is_file() and path.read_bytes() for path in self.outside.rglob("*")}

    def set_config(self, **options):
        values = yaml.safe_load((self.run / "config.yaml").read_text())
        (self.run / "config.yaml").write_text(yaml.safe_dump({**values, **options}))

    def set_json(self, name, **values):
        path = self.run / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    def link(self, name, target):
        path = self.run / name
        path.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(self.outside / target)

    @property
    def checkpoint(self):
        return next(self.run.glob("checkpoint-*"))

    def resume(self):
        return train(RunConfig.load(self.run), resume=True)

    def unharmed(self):
        return not self.proof.exists() and self._snapshot() == self._before


@pytest.fixture(scope="session")
def hostile_place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    keyword_table(60, seed=0, noise=0.2).to_csv(folder / "train.csv", index=False)
    tiny_checkpoint(folder / "model")
    return folder


@pytest.fixture(scope="session")
def original(hostile_place):
    """Run folders that are only copied: finished or not, of a method."""
    made = {}

    def run(method, *, finished):
        output = hostile_place / f"{method}-{finished}"
        if output not in made:
            config = RunConfig(
                model=str(hostile_place / "model"),
                data=str(hostile_place / "train.csv"),
                output=str(output),
                method=method,
                epochs=4,
                batch_size=8,
                max_length=32,
                learning_rate=0.01,
            )
            with suppress(KeyboardInterrupt):
                train(config, reporter=None if finished else _Interrupt())
            made[output] = True
        return output

    return run


@pytest.fixture
def scene(tmp_path, original, hostile_place):
    def arrange(*, finished, method="clear"):
        return Scene(tmp_path, original(method, finished=finished), str(hostile_place / "train.csv"))

    return arrange
