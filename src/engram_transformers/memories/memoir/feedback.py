"""Feedback on answers, for those who come from the seed; it lives in `corrections`.

Nothing of it is about this kind of memory: any memory that can be taught can be corrected.
"""

from engram_transformers.corrections import (
    FeedbackDesk,
    ProposedEdit,
    ReasoningWatch,
    check_answer,
    read_feedback,
)

__all__ = ["FeedbackDesk", "ProposedEdit", "ReasoningWatch", "check_answer", "read_feedback"]
