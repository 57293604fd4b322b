"""What people and sources say about an answer, made into edits that are proposed, never just done.

The room knows texts, facts and what an open memory can do; it knows no kind of memory.
"""

from engram_transformers.corrections.checking import Finding, Passage, check_answer
from engram_transformers.corrections.claims import Claim, claim_of, claims_of, question_of
from engram_transformers.corrections.desk import FeedbackDesk, Heard
from engram_transformers.corrections.feedback import ProposedEdit, Read, read_feedback
from engram_transformers.corrections.knowledge import Knowledge
from engram_transformers.corrections.reasoning import Contradiction, ReasoningWatch, Step

__all__ = [
    "Claim",
    "Contradiction",
    "FeedbackDesk",
    "Finding",
    "Heard",
    "Knowledge",
    "Passage",
    "ProposedEdit",
    "Read",
    "ReasoningWatch",
    "Step",
    "check_answer",
    "claim_of",
    "claims_of",
    "question_of",
    "read_feedback",
]
