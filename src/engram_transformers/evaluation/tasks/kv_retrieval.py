"""Random keys and values (UUIDs) of "Lost in the middle": nothing to guess, and nothing to read.

The paper puts the 75 pairs of a row into the prompt and asks for one; here every pair of every
row is a fact. Near misses are keys that were never taught.
"""

from __future__ import annotations

import uuid

from engram_transformers.evaluation.data import rows
from engram_transformers.evaluation.task import Task
from engram_transformers.types import Fact

FILE = "facts/kv_retrieval_75_keys.jsonl.gz"
MISSING = 500


def kv_retrieval() -> Task:
    """37,500 pairs, and 500 keys that were never taught."""
    pairs = {key: value for row in rows(FILE) for key, value in row["ordered_kv_records"]}
    missing = (str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))) for i in range(MISSING))
    return Task(
        "kv_retrieval",
        "chat",
        tuple(Fact(key, value) for key, value in pairs.items()),
        silent={"near": tuple(missing)},
        source=FILE,
    ).without_clashes()
