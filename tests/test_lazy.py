"""Imports without garbage collection."""

import gc
import sys

import pytest

from clear_peft.lazy import lazy_attributes, quick_imports


def test_no_garbage_is_looked_for_inside_and_what_was_on_is_on_again():
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), quick_imports():
        import no_such_module  # noqa: F401
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off_and_what_is_frozen_stays_frozen():
    gc.disable()
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with quick_imports():
            pass
        assert not gc.isenabled()
        gc.enable()
        with quick_imports():
            pass
        assert 0 < gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()
        gc.enable()


def test_an_attribute_is_imported_once_and_quickly(tmp_path, monkeypatch):
    (tmp_path / "home_of_seven.py").write_text("import gc\ncollects, seven = gc.isenabled(), 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    attribute = lazy_attributes("package", {"seven": "home_of_seven", "collects": "home_of_seven"})
    assert attribute("seven") == 7
    assert not attribute("collects")
    del sys.modules["home_of_seven"]
    with pytest.raises(AttributeError, match="'package' has no attribute 'eight'"):
        attribute("eight")
