"""Forward correction: the model predicts the true class, a transition matrix what is given for it."""

from collections.abc import Mapping

from torch import Tensor

from clear_peft.errors import InputError
from clear_peft.objectives.checks import distributions
from clear_peft.objectives.losses import cross_entropy, forward_cross_entropy
from clear_peft.objectives.objective import BaseObjective


class Forward(BaseObjective):
    """−log Σ_c T[c, y_i]·softmax(f_i)_c (Patrini et al. 2017, arXiv 1609.03683); before T is set, CE."""

    name = "forward"

    @property
    def matrix(self) -> Tensor | None:
        """T, (C, C) float32: T[c, y] = P(given label y | true class c); None as long as none is set.

        A copy is kept of what is set. Setting raises an InputError on another shape, rows that are no
        distributions, or a column that is all zero.
        """
        return self._memory.get("matrix")

    @matrix.setter
    def matrix(self, matrix: Tensor | None) -> None:
        self._memory.pop("matrix", None)
        if matrix is None:
            return
        matrix = distributions("matrix", matrix, (self.num_classes, self.num_classes))
        never = ~matrix.any(dim=0)
        if never.any():
            raise InputError(
                f"Column {int(never.nonzero()[0])} of matrix is all zero, so that its label could never be "
                "given: give every column a positive number."
            )
        self._memory["matrix"] = matrix

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        if self.matrix is None:
            return cross_entropy(logits, labels)
        return forward_cross_entropy(logits, labels, self.matrix)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned; see ``Objective``."""
        if not state.keys() <= {"matrix"}:
            raise self._foreign(state)
        self.matrix = state.get("matrix")
