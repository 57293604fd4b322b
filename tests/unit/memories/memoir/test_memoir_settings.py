"""Settings: environment over flags over file over defaults, each with a type, all really used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engram_transformers.errors import BadInput, HostMismatch
from engram_transformers.memories.memoir import MemoirSettings, open_parts, read_settings


def test_defaults_are_those_of_the_seed() -> None:
    settings = read_settings(environ={})
    assert settings == MemoirSettings(4096, 10_000, 100, 0.8, None, None)
    assert settings.origins == {}


def test_the_environment_wins_over_flags_and_these_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "memoir.json"
    file.write_text(json.dumps({"hidden_size": 64, "top_k": 4, "max_edits": 9}))
    settings = read_settings(
        file=file,
        flags={"top_k": 5, "max_edits": 8, "storage_dir": None},
        environ={"MEMOIR_MAX_EDITS": "7"},
    )
    assert (settings.hidden_size, settings.top_k, settings.max_edits) == (64, 5, 7)
    assert settings.similarity_threshold == 0.8 and settings.storage_dir is None
    assert settings.origins == {
        "hidden_size": f"{file}: hidden_size",
        "top_k": "flag top_k",
        "max_edits": "MEMOIR_MAX_EDITS",
    }


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOIR_TOP_K", "17")
    assert read_settings().top_k == 17


def test_toml_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "memoir.toml"
    file.write_text('similarity_threshold = 0.6\nstorage_dir = "masks"\n')
    settings = read_settings(file=file, environ={})
    assert settings.similarity_threshold == 0.6 and settings.storage_dir == Path("masks")


def test_every_variable_of_the_seed_reaches_a_part(tmp_path: Path) -> None:
    environ = {
        "MEMOIR_HIDDEN_SIZE": "64",
        "MEMOIR_MAX_EDITS": "2",
        "MEMOIR_TOP_K": "8",
        "MEMOIR_SIMILARITY_THRESHOLD": "0.5",
        "MEMOIR_STORAGE_DIR": str(tmp_path / "masks"),
        "MEMOIR_PERMUTATION_FILE": str(tmp_path / "memoir_permutation.pkl"),
    }
    parts = open_parts(read_settings(environ=environ))
    mask = parts.fingerprinter.generate_mask(torch.arange(64.0))
    assert mask.shape == (64,) and mask.sum() == parts.memory.top_k == 8
    assert (tmp_path / "memoir_permutation.safetensors").exists()
    parts.database.add("a", mask)
    assert (tmp_path / "masks" / "masks.json").exists()
    half = mask.clone()
    half[mask.nonzero()[:4, 0]] = 0
    half[(mask == 0).nonzero()[:4, 0]] = 1
    assert parts.database.find_closest(half) is not None
    assert parts.database.find_closest(half, 0.8) is None
    assert parts.database.max_masks == parts.memory.max_edits == 2
    with pytest.raises(HostMismatch):
        open_parts(read_settings(environ=environ | {"MEMOIR_TOP_K": "9"}))
    with pytest.raises(HostMismatch):
        open_parts(read_settings(environ=environ), host="another")


@pytest.mark.parametrize(
    "environ, message",
    [
        ({"MEMOIR_TOP_K": "ten"}, "MEMOIR_TOP_K is 'ten'; it has to be a whole number"),
        ({"MEMOIR_TOP_K": "0"}, "MEMOIR_TOP_K"),
        ({"MEMOIR_MAX_EDITS": "1.5"}, "MEMOIR_MAX_EDITS"),
        ({"MEMOIR_SIMILARITY_THRESHOLD": "1.2"}, "MEMOIR_SIMILARITY_THRESHOLD is '1.2'"),
        ({"MEMOIR_SIMILARITY_THRESHOLD": "nan"}, "MEMOIR_SIMILARITY_THRESHOLD"),
        ({"MEMOIR_STORAGE_DIR": " "}, "MEMOIR_STORAGE_DIR"),
        ({"MEMOIR_HIDDEN_SIZE": "64"}, "top_k .default. is 100, more than MEMOIR_HIDDEN_SIZE, 64"),
        ({"MEMOIR_TOPK": "3"}, "MEMOIR_TOPK is no setting. Did you mean top_k"),
    ],
)
def test_errors_name_the_variable(environ: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_settings(environ=environ)


@pytest.mark.parametrize("flags", [{"top_k": True}, {"top_k": 2.5}, {"colour": 1}])
def test_errors_name_the_flag(flags: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"flag {next(iter(flags))}"):
        read_settings(flags=flags, environ={})


@pytest.mark.parametrize("content", ["{", "[1]", '{"top_k": "x"}'])
def test_errors_name_the_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "memoir.json"
    file.write_text(content)
    with pytest.raises(BadInput, match=r"memoir\.json"):
        read_settings(file=file, environ={})
    with pytest.raises(BadInput, match=r"none\.json cannot be read"):
        read_settings(file=tmp_path / "none.json", environ={})


def test_other_variables_of_the_prefix_are_somebody_elses() -> None:
    assert read_settings(environ={"MEMOIR_LOGO": "x"}) == MemoirSettings()
