"""Features, predictions or losses and given labels in; which labels look right out, as ``LabelQuality``."""

from clear_peft.label_quality.agreement import agreement
from clear_peft.label_quality.calibration import Calibration, calibrate
from clear_peft.label_quality.duplicates import duplicate_groups
from clear_peft.label_quality.evidence import fit_probe, with_verified, with_votes
from clear_peft.label_quality.folds import stratified_folds
from clear_peft.label_quality.groups import as_groups, combined, identical_rows
from clear_peft.label_quality.head import LinearHead, fit_linear_head
from clear_peft.label_quality.logistic import fit_logistic_head
from clear_peft.label_quality.loss_mixture import (
    GaussianLossMixture,
    LossMixture,
    MixtureEstimate,
    PaperMixture,
)
from clear_peft.label_quality.multilabel import (
    MultilabelQuality,
    as_flags,
    fit_multilabel,
    fit_multilabel_probe,
    multilabel_quality_from_pred_probs,
)
from clear_peft.label_quality.noise_model import NoiseModel
from clear_peft.label_quality.pred_probs import label_quality_from_pred_probs
from clear_peft.label_quality.probe import Judgement, LinearProbe
from clear_peft.label_quality.propose import Proposed, rows_to_verify
from clear_peft.label_quality.quality import LabelQuality, TopProbs
from clear_peft.label_quality.ranking import rank_label_issues
from clear_peft.label_quality.sampled_rate import noise_rate_from_sample
from clear_peft.label_quality.scale import log_odds
from clear_peft.label_quality.smoothing import smooth
from clear_peft.label_quality.votes import check_votes, consensus, reliability

__all__ = [
    "Calibration",
    "GaussianLossMixture",
    "Judgement",
    "LabelQuality",
    "LinearHead",
    "LinearProbe",
    "LossMixture",
    "MixtureEstimate",
    "MultilabelQuality",
    "NoiseModel",
    "PaperMixture",
    "Proposed",
    "TopProbs",
    "agreement",
    "as_flags",
    "as_groups",
    "calibrate",
    "check_votes",
    "combined",
    "consensus",
    "duplicate_groups",
    "fit_linear_head",
    "fit_logistic_head",
    "fit_multilabel",
    "fit_multilabel_probe",
    "fit_probe",
    "identical_rows",
    "label_quality_from_pred_probs",
    "log_odds",
    "multilabel_quality_from_pred_probs",
    "noise_rate_from_sample",
    "rank_label_issues",
    "reliability",
    "rows_to_verify",
    "smooth",
    "stratified_folds",
    "with_verified",
    "with_votes",
]
