"""The report: one HTML file that opens without a server or a network."""

from clear_peft.report.page.document import render

__all__ = ["render"]
