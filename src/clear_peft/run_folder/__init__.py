"""What a run folder holds: its options, the names of its files, and what may stand in them."""

from clear_peft.run_folder.config import RunConfig

__all__ = ["RunConfig"]
