"""The run folder: an earlier run is replaced whole, or not at all."""

from pathlib import Path

import pytest

from clear_peft.errors import InputError
from clear_peft.run_folder import RunConfig, layout


def held(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_text() for path in folder.rglob("*")}


@pytest.mark.parametrize("stop", [PermissionError(13, "In use"), KeyboardInterrupt()], ids=repr)
def test_an_earlier_run_with_a_file_that_cannot_be_moved_stays_as_it_is(tmp_path, monkeypatch, stop):
    folder, rename = tmp_path / "run", Path.rename
    config = RunConfig(model="m", data="d.csv", output=str(folder))
    (folder / "adapter").mkdir(parents=True)
    config.save(folder)
    for name in ("adapter/weights", layout.METRICS, layout.LABEL_ISSUES, layout.REPORT):
        (folder / name).write_text(name)
    before = held(folder)

    def rename_but_one(path, target):
        if path == folder / layout.LABEL_ISSUES:
            raise stop
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_but_one)
    wanted = InputError if isinstance(stop, OSError) else KeyboardInterrupt
    with pytest.raises(wanted), layout.begin(config, "digest"):
        raise AssertionError("nothing is trained")
    assert held(folder) == before
