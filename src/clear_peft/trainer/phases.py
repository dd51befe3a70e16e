"""The phases of training, and what each one does with labels, gates, rows and weights.

    WARM_UP ── the warm-up ends: the labels are estimated ──► CONTINUE   no noise was found
                                                         └──► ROBUST     noise was found

============  ==================  ====================  ============================  ==================
phase         target of a row     gates of its blocks   rows are sampled              evaluated weights
============  ==================  ====================  ============================  ==================
``PLAIN``     given label         none                  alike                         the last
``WARM_UP``   given label         open with γ           alike                         the last
``CONTINUE``  given label         open with γ           alike                         the last
``ROBUST``    soft label          open with γ·c         by c, with class balance      their average [1]
============  ==================  ====================  ============================  ==================

γ is ``max_gate_prob`` and c the confidence of the row's target: the probability of its likeliest class.
Without ``soft_labels`` the target stays the given label, c is its clean probability, and rows are sampled
alike.

[1] After a restart; where training goes on from the warm-up, the last.
"""

from dataclasses import dataclass
from enum import StrEnum

from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.estimate import Estimate


class Phase(StrEnum):
    """Where training stands."""

    PLAIN = "plain"
    """No estimate is made: the given labels count as they are, to the end."""
    WARM_UP = "warm_up"
    """The labels have not been estimated yet."""
    CONTINUE = "continue"
    """No noise was found, and training goes on as it began: it is plain training, bit for bit."""
    ROBUST = "robust"
    """Noise was found: training restarts (``restart``) or goes on, and trusts each label by its estimate."""


def epochs_of(args: CleaRConfig, max_steps: int, steps_per_epoch: int) -> float:
    """Number of epochs of a training, a fraction where ``max_steps`` ends it in the middle of one."""
    return max_steps / steps_per_epoch if args.max_steps > 0 else args.num_train_epochs


@dataclass(frozen=True)
class Schedule:
    """When things happen.

    Attributes:
        num_epochs: Of the training; a fraction where ``max_steps`` ends it in the middle of one.
        warm_up_epochs: After so many the labels are estimated.
        restart: Whether training then begins again if noise was found.
    """

    num_epochs: float
    warm_up_epochs: int
    restart: bool

    @classmethod
    def of(cls, args: CleaRConfig, num_epochs: float) -> "Schedule":
        """The schedule of a training of so many epochs."""
        return cls(num_epochs, args.warm_up(num_epochs), restart=args.clean_routing and args.restart)

    def phase(self, uses_estimates: bool, last: Estimate | None) -> Phase:
        """The phase.

        Args:
            uses_estimates: Whether training makes use of estimates at all.
            last: The last estimate, if there has been one.
        """
        if not uses_estimates:
            return Phase.PLAIN
        if last is None or last.epoch < self.warm_up_epochs:
            return Phase.WARM_UP
        # an estimate that no epoch is left to make use of changes nothing
        used = last.noise_found and self.warm_up_epochs < self.num_epochs
        return Phase.ROBUST if used else Phase.CONTINUE

    def restarts(self, phase: Phase) -> bool:
        """Whether training begins, or has begun, again."""
        return self.restart and phase is Phase.ROBUST

    def has_restarted(self, phase: Phase, epoch: float | None) -> bool:
        """Whether training has begun again, and taken a step since, by so many epochs."""
        return self.restarts(phase) and (epoch or 0) > self.warm_up_epochs

    def first_selectable(self, phase: Phase) -> float:
        """The first epoch whose model may be the best one: the warm-up's never is.

        Nor is the one that found the noise, before a restart: it agrees with itself, and is left behind.
        """
        if phase is Phase.PLAIN:
            return 0
        return min(self.warm_up_epochs + self.restarts(phase), self.num_epochs)
