"""Precision and recall of reading feedback, by part of the labelled set.

python -m benchmarks.feedback
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SET = Path(__file__).parents[1] / "tests" / "unit" / "corrections"


def main() -> None:
    sys.path.insert(0, str(SET))
    from feedback_set import PARTS, counts, part

    print(json.dumps({name: _rates(counts(part(name))) for name in PARTS}, indent=1))


def _rates(found: Any) -> dict[str, Any]:
    right, wrong, missed = (found[name] for name in ("right", "wrong", "missed"))
    return {
        **found,
        "precision": round(right / max(1, right + wrong), 3),
        "recall": round(right / max(1, right + missed), 3),
    }


if __name__ == "__main__":
    main()
