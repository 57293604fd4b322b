"""Trained memories with a module of their own at each late block: baselines of the field."""

from engram_transformers.memories.tuned.config import BiasConfig, BottleneckConfig, FineTuneConfig
from engram_transformers.memories.tuned.memory import Bias, Bottleneck, FineTune, Tuned

__all__ = [
    "Bias",
    "BiasConfig",
    "Bottleneck",
    "BottleneckConfig",
    "FineTune",
    "FineTuneConfig",
    "Tuned",
]
