"""The commit that a figure names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engram_transformers.experiments.provenance import commit_of


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("src/a.py", "benchmarks/b.py", "benchmarks/results/c.json", "docs/d.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    (tmp_path / "pyproject.toml").write_text("")
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for arguments in (("init", "-q"), ("add", "."), (*own, "commit", "-qm", "first")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("name", ["benchmarks/results/c.json", "docs/d.md"])
def test_what_measurements_leave_is_no_other_code(repository: Path, name: str) -> None:
    clean = commit_of(repository)
    (repository / name).write_text("2\n")
    assert clean is not None and len(clean) == 12 and commit_of(repository) == clean


@pytest.mark.parametrize("name", ["src/a.py", "benchmarks/b.py"])
def test_changed_code_is_marked(repository: Path, name: str) -> None:
    clean = commit_of(repository)
    (repository / name).write_text("2\n")
    assert commit_of(repository) == f"{clean}-dirty"


def test_no_repository_has_no_commit(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
