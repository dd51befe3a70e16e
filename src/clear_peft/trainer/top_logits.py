"""Predicted probabilities of all training rows as logits on the device, in little room."""

import math

import torch
from torch import Tensor

from clear_peft.label_quality import TopProbs

# probabilities below are one: their logits are finite in float16
_LEAST = 1e-12


class TopLogits:
    """What is predicted for N rows and C classes, as logits in float16.

    Up to 64 classes are all kept, in 2·C bytes a row. Of more, the 32 largest are kept with their classes,
    and one more logit that every other class has: a row then takes 130 bytes, or 194 beyond 32,768 classes.
    No class is off by more than the likeliest that was not kept had (1/33 at most).

    Args:
        pred_probs: The predictions.
        device: Where they are kept.
    """

    def __init__(self, pred_probs: TopProbs, device: torch.device) -> None:
        self.num_classes = pred_probs.num_classes
        classes = torch.from_numpy(pred_probs.classes)
        probs = torch.from_numpy(pred_probs.values)
        logits = probs.clamp(min=_LEAST).log()
        others = self.num_classes - classes.shape[1]
        if others:
            rest = (1 - probs.double().sum(dim=1, keepdim=True)).clamp(min=_LEAST).log() - math.log(others)
            logits = torch.cat([logits, rest.float()], dim=1)
        else:
            logits = torch.empty_like(logits).scatter_(1, classes.long(), logits)
        self._logits = logits.to(device, torch.float16)
        self._classes = classes.to(device) if others else None

    @property
    def bytes_per_row(self) -> int:
        """Memory that each row takes."""
        return sum(kept[0].nbytes for kept in (self._logits, self._classes) if kept is not None)

    def logits(self, ids: Tensor) -> Tensor:
        """Logits of some rows, ids (B,) int64, (B, C) float32."""
        values = self._logits[ids].float()
        if self._classes is None:
            return values
        others = values[:, -1:].repeat(1, self.num_classes)
        return others.scatter_(1, self._classes[ids].long(), values[:, :-1])

    def probs(self, ids: Tensor) -> Tensor:
        """Class probabilities of some rows, ids (B,) int64, (B, C) float32."""
        return torch.softmax(self.logits(ids), dim=1)
