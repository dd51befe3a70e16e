"""Plain PEFT that stops when the doubtful validation labels are predicted no better for two epochs.

Zhu et al. 2022 (arXiv 2204.09371) found it hard to beat on BERT.
"""

from clear_peft.methods.method import Method

METHOD = Method(
    name="early_stopping",
    summary="plain PEFT with early stopping",
    settings={"clean_routing": False, "patience": 2},
)
