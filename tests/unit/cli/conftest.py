from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engram_transformers.cli.main import main
from hosts import tiny, tiny_tokenizer


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def host_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def engram(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    host_folder: Path,
) -> Run:
    """Runs a command line in an empty directory, with a tiny host as the default model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGRAM_MODEL", str(host_folder))
    monkeypatch.delenv("ENGRAM_MEMORY", raising=False)
    monkeypatch.delenv("ENGRAM_DEBUG", raising=False)

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        status = main(argv)
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        if status == 2:
            assert found.err.count("\n") == 1 and found.err.startswith("engram: ")
            assert not found.out
        return Ran(status, found.out, found.err)

    return run


FACTS = [
    {"prompt": "Which port does billing use?", "answer": "8443", "paraphrases": ["billing port?"]},
    {"prompt": "Who wrote the report?", "answer": "Grace Hopper", "source": "minutes"},
    {"prompt": "What colour is the door?", "answer": "Green", "subject": "door", "relation": "c"},
]


@pytest.fixture
def facts_file(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in FACTS))
    return path


@pytest.fixture
def taught(engram: Run, facts_file: Path) -> str:
    """A memory of three facts."""
    assert engram("teach", str(facts_file), "-M", "mem", "--address", "exact").status == 0
    return "mem"
