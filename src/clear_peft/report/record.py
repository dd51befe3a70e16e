"""What is known about a run, finished or not, or about a scan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clear_peft.audit import Audit


@dataclass(frozen=True)
class RunRecord:
    """The content of the folder of a run, read and checked, or of a scan.

    Attributes:
        name: The run folder's name.
        config: What ``config.yaml`` holds.
        epochs: Figures of every epoch so far, oldest first; of their keys only ``epoch`` must be there.
        metrics: What ``metrics.json`` holds; None while the run is not finished.
        audit: The ranked rows; None as long as there is no list of label issues.
        missing: Sentences about pieces that should be there and are not. Default: nothing is missing.
        trained: Whether it is a run; a scan trains nothing. Default True.
        proposed: Rows that somebody should look at first, by their position in the table. Default: none.
    """

    name: str
    config: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any] | None
    audit: Audit | None
    missing: Sequence[str] = ()
    trained: bool = True
    proposed: Sequence[int] = ()

    @property
    def warm_up(self) -> int | None:
        """Number of epochs before training restarted; None where it did not, or not yet."""
        return next((epoch["epoch"] for epoch in self.epochs if epoch.get("restarts")), None)
