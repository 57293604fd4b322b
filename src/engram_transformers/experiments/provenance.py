"""Where a number comes from: commit, machine, versions, host and data."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import engram_transformers
from engram_transformers.api import Host

MEASURED = ("src", "benchmarks", "pyproject.toml", ":(exclude)benchmarks/results")
"Files of which a figure is made."


def provenance(host: Host) -> dict[str, Any]:
    """Everything that one needs to run a measurement again."""
    return {
        **origin(gpu=host.adapter.device.type == "cuda"),
        "host": host.identity.id,
        "fingerprint": host.identity.fingerprint,
        "dtype": str(host.adapter.dtype),
    }


def origin(*, gpu: bool = False) -> dict[str, Any]:
    """The same for what no host takes part in."""
    device = torch.cuda.get_device_name() if gpu else None
    return {
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "library": engram_transformers.__version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "machine": device or f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    """The commit that was measured."""
    root = Path(__file__).resolve().parents[3]
    # Installed: whatever repository is around is not ours.
    found = commit_of(root) if (root / ".git").exists() else None
    return found or os.environ.get("ENGRAM_COMMIT")


def commit_of(root: Path) -> str | None:
    """The commit of a repository, marked where code differs from it; None without git.

    What measurements leave behind is no other code than that of the commit.
    """
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "diff", "--name-only", "HEAD", "--", *MEASURED)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()
