"""A review in the browser: rows to look at, answers to them, and what these say of all other rows."""

from clear_peft.review.patterns import Pattern, patterns
from clear_peft.review.server import ReviewServer
from clear_peft.review.session import Review

__all__ = ["Pattern", "Review", "ReviewServer", "patterns"]
