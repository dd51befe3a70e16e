"""Confident learning (Northcutt et al. 2021, arXiv 1911.00068), by the package cleanlab."""

from clear_peft.methods.method import Method

METHOD = Method(
    name="cleanlab",
    summary="confident learning",
    folds=5,
    needs="5 folds and a retraining",
)
