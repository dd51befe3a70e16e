"""Loss history in, clean probabilities out: which labels does the model itself find believable?"""

from clear_peft.cleanliness.estimate import CleanlinessEstimate, CleanlinessEstimator
from clear_peft.cleanliness.mixture_cleanliness import BetaMixtureCleanliness, GaussianMixtureCleanliness
from clear_peft.cleanliness.ranking import rank_label_issues
from clear_peft.cleanliness.scale import log_odds
from clear_peft.cleanliness.smoothing import smooth

__all__ = [
    "BetaMixtureCleanliness",
    "CleanlinessEstimate",
    "CleanlinessEstimator",
    "GaussianMixtureCleanliness",
    "log_odds",
    "rank_label_issues",
    "smooth",
]
