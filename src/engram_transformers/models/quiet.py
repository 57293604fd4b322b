"""Keeps transformers' progress bars and warnings off the screen while a model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as hub_logging


@contextmanager
def quiet() -> Iterator[None]:
    """Silence loading bars and everything below an error; leaves the settings as they were."""
    bars = hub_logging.is_progress_bar_enabled()
    level = hub_logging.get_verbosity()
    hub_logging.disable_progress_bar()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if bars:
            hub_logging.enable_progress_bar()
