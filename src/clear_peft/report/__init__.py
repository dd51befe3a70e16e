"""Run folder in, one self-contained HTML page out."""

from clear_peft.report.page import render
from clear_peft.report.record import RunRecord

__all__ = ["RunRecord", "render"]
