"""What a model predicts for every training example: remembered to be learnt from, in little room."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# of more than twice as many classes, so many are kept, with two bytes for each logit and for each class
KEPT = 32
_LARGEST = torch.finfo(torch.float16).max
_CHUNK = 1 << 16


class Teacher:
    """Predictions of N examples for C classes, as logits in float16.

    Up to 64 classes are all kept, in 2·C bytes an example. Of more, the 32 largest logits are kept with their
    classes, and one more that every other class has: the logarithm of the mean of their exponentials. An
    example then takes 130 bytes, or 194 beyond 32,768 classes.

    So kept classes have the probability that the model gave them, and the others share theirs, r, evenly: no
    class is off by more than the likeliest that was not kept had (at most 1/33), and the distribution by at
    most r in total variation. That holds at temperatures below 1 too, r being what it is there; all but for
    the rounding of float16.

    Args:
        values: Logits, (N, C) float16; with ``classes`` (N, K + 1), largest first, then that of the others.
        num_classes: C.
        classes: Classes of the kept logits, (N, K) int16 or int32; None where all are kept.
    """

    def __init__(self, values: Tensor, num_classes: int, classes: Tensor | None = None) -> None:
        self.values = values
        self.num_classes = num_classes
        self.classes = classes

    @classmethod
    def of(cls, logits: Tensor, kept: int = KEPT) -> "Teacher":
        """Remember logits.

        Args:
            logits: (N, C), any float dtype.
            kept: K, how many are kept where there are more than 2·K classes. Default 32.
        """
        teacher = cls.unknown(len(logits), logits.shape[1], logits.device, kept)
        for start in range(0, len(logits), _CHUNK):  # bounds what it takes beside the logits
            part = slice(start, start + _CHUNK)
            teacher.put(part, logits[part])
        return teacher

    @classmethod
    def unknown(cls, size: int, num_classes: int, device: torch.device, kept: int = KEPT) -> "Teacher":
        """Predict nothing yet: all classes of N examples are alike."""
        if num_classes <= 2 * kept:
            return cls(torch.zeros(size, num_classes, dtype=torch.float16, device=device), num_classes)
        dtype = torch.int16 if num_classes <= 1 << 15 else torch.int32
        classes = torch.arange(kept, dtype=dtype, device=device).repeat(size, 1)
        values = torch.zeros(size, kept + 1, dtype=torch.float16, device=device)
        return cls(values, num_classes, classes)

    @torch.no_grad()
    def put(self, ids: Tensor | slice, logits: Tensor) -> None:
        """Remember the logits, (B, C), of some examples, (B,) int64, in place of what was known of them."""
        values = logits.float()
        if self.classes is not None:
            largest, classes = values.topk(self.classes.shape[1], dim=1)
            others = values.scatter(1, classes, -torch.inf).logsumexp(dim=1, keepdim=True)
            values = torch.cat([largest, others - math.log(self.num_classes - classes.shape[1])], dim=1)
            self.classes[ids] = classes.to(self.classes.dtype)
        self.values[ids] = values.clamp(-_LARGEST, _LARGEST).to(torch.float16)

    def __len__(self) -> int:
        return len(self.values)

    def logits(self, ids: Tensor | slice = slice(None)) -> Tensor:
        """Logits of some examples, (B, C) float32; of all by default."""
        values = self.values[ids].float()
        if self.classes is None:
            return values
        others = values[:, -1:].repeat(1, self.num_classes)
        return others.scatter_(1, self.classes[ids].long(), values[:, :-1])

    def probabilities(self, ids: Tensor | slice = slice(None)) -> Tensor:
        """Class probabilities of some examples, (B, C) float32; of all by default."""
        return torch.softmax(self.logits(ids), dim=1)

    @property
    def predicted(self) -> Tensor:
        """The likeliest class of each example, (N,) int64."""
        return self.values.argmax(dim=1) if self.classes is None else self.classes[:, 0].long()

    @property
    def confidence(self) -> Tensor:
        """The probability of the likeliest class of each example, (N,) float32."""
        parts = range(0, len(self), _CHUNK)
        surest = [self.probabilities(slice(i, i + _CHUNK)).amax(dim=1) for i in parts]
        return torch.cat(surest) if surest else self.values.new_zeros(0).float()

    def to(self, device: torch.device) -> "Teacher":
        """The same on a device."""
        classes = None if self.classes is None else self.classes.to(device)
        return Teacher(self.values.to(device), self.num_classes, classes)

    def tensors(self) -> dict[str, Tensor]:
        """What a file has to hold, ``teacher`` and perhaps ``teacher_classes``; see ``restored``."""
        known = {"teacher": self.values}
        return known if self.classes is None else {**known, "teacher_classes": self.classes}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], size: int, num_classes: int) -> "Teacher":
        """Make a teacher of what ``tensors`` returned.

        Raises:
            ValueError: If it is not of so many examples and classes.
        """
        own = cls.unknown(1, num_classes, torch.device("cpu")).tensors()
        if tensors.keys() != own.keys() or any(
            tensors[n].dtype != t.dtype or tensors[n].shape != (size, t.shape[1]) for n, t in own.items()
        ):
            raise ValueError(f"it does not hold predictions of {size} examples for {num_classes} classes")
        classes = tensors.get("teacher_classes")
        if classes is not None and not bool(((classes >= 0) & (classes < num_classes)).all()):
            raise ValueError("it predicts classes that there are not")
        return cls(tensors["teacher"], num_classes, classes)
