"""Loss history in, clean probabilities out: which labels does the model itself find believable?"""

from clear_peft.cleanliness.drift import moved_to
from clear_peft.cleanliness.estimate import CleanlinessEstimate, CleanlinessEstimator
from clear_peft.cleanliness.folds import stratified_folds
from clear_peft.cleanliness.mixture_cleanliness import BetaMixtureCleanliness, GaussianMixtureCleanliness
from clear_peft.cleanliness.noise_model import NoiseModel, fit_noise_model
from clear_peft.cleanliness.probe import (
    Opinion,
    Probe,
    Readout,
    clean_probability_out_of_sample,
    probe,
    readout,
)
from clear_peft.cleanliness.ranking import rank_label_issues
from clear_peft.cleanliness.scale import log_odds
from clear_peft.cleanliness.smoothing import smooth

__all__ = [
    "BetaMixtureCleanliness",
    "CleanlinessEstimate",
    "CleanlinessEstimator",
    "GaussianMixtureCleanliness",
    "NoiseModel",
    "Opinion",
    "Probe",
    "Readout",
    "clean_probability_out_of_sample",
    "fit_noise_model",
    "log_odds",
    "moved_to",
    "probe",
    "rank_label_issues",
    "readout",
    "smooth",
    "stratified_folds",
]
