"""Makes `tests/hosts.py` importable from every test file, and keeps the tests offline."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny tensors gain nothing from threads, and workers side by side lose much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
