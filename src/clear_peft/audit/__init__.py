"""Clean probabilities in; ranked label issues, confused classes, duplicates and corrections out."""

from clear_peft.audit.corrections import Corrections, corrected, read_corrections
from clear_peft.audit.findings import Audit, audit, to_check
from clear_peft.audit.interop import add_to_datalab, from_pred_probs
from clear_peft.audit.issues import read_issues
from clear_peft.audit.joint import confused_pairs
from clear_peft.audit.table_issues import TABLE_ISSUES, rare_classes, said_issues, table_issues

__all__ = [
    "TABLE_ISSUES",
    "Audit",
    "Corrections",
    "add_to_datalab",
    "audit",
    "confused_pairs",
    "corrected",
    "from_pred_probs",
    "rare_classes",
    "read_corrections",
    "read_issues",
    "said_issues",
    "table_issues",
    "to_check",
]
