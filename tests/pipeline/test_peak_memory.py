"""The most memory in use so far, on this system and on one that lacks ``resource``."""

import sys
from types import SimpleNamespace

import psutil
import torch

from clear_peft.pipeline.metrics import peak_memory


def test_it_is_at_least_what_is_in_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # counted in pages by one, in kilobytes by the other
    assert peak_memory() > 0.9 * psutil.Process().memory_info().rss


def test_windows_has_no_module_resource(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=123))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    assert peak_memory() == 123
