"""The other commands: what they print, as text and as JSON, and what they refuse."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engram_transformers.cli.main import COMMANDS

PORT = "Which port does billing use?"


def test_list(engram, taught):
    ran = engram("list", "-M", taught)
    assert len(ran.out.splitlines()) == 3 and PORT in ran.out
    found = engram("list", "-M", taught, "--filter", "GRACE", "--json").json
    assert (found["total"], found["found"], len(found["facts"])) == (3, 1, 1)
    assert found["facts"][0]["source"] == "minutes"
    assert "1 shown, 3 found, 3 facts in all" in engram("list", "-M", taught, "--limit", "1").out


def test_show(engram, taught):
    id = engram("list", "-M", taught, "--json").json["facts"][0]["id"]
    found = engram("show", id[:5], "-M", taught, "--json").json
    assert (found["id"], found["answer"]) == (id, "8443")
    assert found["history"][0]["act"] == "teach"
    assert f"fires on    '{PORT}'" in engram("show", id, "-M", taught, "--spans").out
    engram("forget", id, "-M", taught)
    ran = engram("show", id, "-M", taught)
    assert ran.status == 2 and "was removed by write 2" in ran.err


def test_ask(engram, taught):
    assert engram("ask", PORT, "-M", taught).out == "8443\n"
    ran = engram("ask", PORT, "-M", taught, "--explain")
    assert ran.out.startswith("8443\nfired: ") and "by exact" in ran.out
    found = engram("ask", PORT, "-M", taught, "--explain", "--json").json
    assert found["fired"] and found["fact"]["answer"] == "8443"
    assert found["explanation"]["address"] == "exact"
    found = engram("ask", PORT, "--bare", "--max-new-tokens", "3", "--json").json
    assert not found["fired"] and found["answer"] != "8443"


def test_forget_and_undo(engram, taught):
    ids = [fact["id"] for fact in engram("list", "-M", taught, "--json").json["facts"]]
    assert (
        len(engram("forget", *ids[:2], "-M", taught, "--dry-run", "--json").json["forgotten"]) == 2
    )
    assert engram("stats", "-M", taught, "--json").json["active"] == 3
    assert "brings them back" in engram("forget", "--filter", "grace", "-M", taught).out
    assert engram("stats", "-M", taught, "--json").json["active"] == 2
    assert engram("undo", "-M", taught, "--json").json["restored"] == [ids[1]]
    assert engram("forget", "--all", "--yes", "-M", taught).status == 0
    assert engram("list", "-M", taught).out == "no facts\n"
    assert engram("undo", "4", "-M", taught).status == 0
    assert engram("ask", PORT, "-M", taught).out == "8443\n"
    assert len(engram("undo", "--list", "-M", taught).out.splitlines()) == 5
    assert engram("undo", "99", "-M", taught).status == 2


def test_verify(engram, taught):
    found = engram("verify", "-M", taught, "--json")
    assert found.status == 0
    assert found.json == {"facts": 3, "questions": 4, "hold": 3, "failed": []}
    assert "3 of 3 facts hold" in engram("verify", "-M", taught).out


def test_verify_names_what_does_not_hold(engram, taught, monkeypatch):
    from engram_transformers.memories.lookup import Lookup

    monkeypatch.setattr(Lookup, "forward", lambda self, x, y, signal: y)
    ran = engram("verify", "-M", taught)
    assert ran.status == 1 and "0 of 3 facts hold, 3 fail" in ran.out
    assert "expected '8443', said" in ran.out
    assert len(engram("verify", "-M", taught, "--json").json["failed"]) == 3


def test_stats_and_models(engram, taught):
    found = engram("stats", "-M", taught, "--json").json
    assert (found["active"], found["writes"], found["host"]["id"]) == (3, 1, "tiny")
    assert "3 active" in engram("stats", "-M", taught).out
    names = [each["name"] for each in engram("models", "--json").json["models"]]
    assert "smollm2-135m" in names


def test_chat_reads_a_pipe(engram, taught, monkeypatch):
    lines = [PORT, '/teach "Who runs it?" => "Ada"', "Who runs it?", "/explain", "Who runs it?"]
    lines += ["/bare", "Who runs it?", "/bare", "/undo", "/new", "/help", "", "/quit", "unread"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    ran = engram("chat", "-M", taught, "--max-new-tokens", "4")
    assert ran.status == 0
    said = ran.out.splitlines()
    assert said[0] == "8443" and said[2] == "Ada" and said[4] == "Ada"
    assert said[5].startswith("fired: ")
    assert "undone: 0 restored, 1 removed" in said
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PORT}\n/nope\n/teach x\n/forget zz\n"))
    ran = engram("chat", "-M", taught, "--json")
    assert (ran.status, ran.json["failed"]) == (1, 3)
    assert ran.json["turns"][0]["answer"] == "8443"
    assert ran.err.count("\n") == 3


BAD = {
    "tech": "did you mean 'teach'?",
    "teach --promt x -M m": "did you mean --prompt?",
    "teach -M m": "nothing to teach",
    "teach nothing.jsonl -M m": "no file nothing.jsonl",
    "teach --prompt x -M m": "--answer is missing",
    "teach --prompt x --answer y z.jsonl -M m": "not both",
    "teach --prompt x --answer y": "no memory was named",
    "teach --prompt x --answer y -M m --on-conflict maybe": "invalid choice: 'maybe'",
    "teach --prompt x --answer y -M m --limit 0": "'0' is not a whole number from 1",
    "teach --prompt x --answer y -M m -m ./nowhere": "no file or folder ./nowhere",
    "teach --prompt x --answer y -M m -m smollm2-135": "Did you mean 'smollm2-135m'?",
    "list -M m": "the memory m does not exist",
    "list": "no memory was named",
    "ask hello -M m": "the memory m does not exist",
    "verify -M m": "the memory m does not exist",
    "chat -M m": "the memory m does not exist",
    "ask -M m": "QUESTION",
    "ask hello --bare --explain": "--bare asks without it",
    "show -M m": "ID",
    "forget -M m": "say what to forget",
    "forget --all x -M m": "one of the three",
    "forget --filter= -M m": "--filter is empty",
    "undo x -M m": "not a whole number",
    "undo 3 --list -M m": "takes no number",
    "export - --json -M m": "name a file",
    "export x.gz -M m": "name it x",
    "import -M m": "FILE",
    "stats extra -M m": "does not know 'extra'",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_creates_nothing(engram, line: str, tmp_path: Path):
    ran = engram(*line.split())
    assert ran.status == 2
    assert BAD[line] in ran.err
    assert not list(tmp_path.iterdir())


def test_bad_input_about_a_memory_that_is_there(engram, taught):
    assert "Did you mean mem?" in engram("list", "-M", "mme").err
    assert "confirm it with --yes" in engram("forget", "--all", "-M", taught).err
    assert "no fact here has the id" in engram("forget", "ffff", "-M", taught).err
    assert "is empty" in engram("ask", " ", "-M", taught).err


def test_a_memory_of_a_host_that_has_moved(engram, taught, monkeypatch):
    monkeypatch.delenv("ENGRAM_MODEL")
    ran = engram("ask", PORT, "-M", taught)
    assert ran.status == 2 and "mem was made for 'tiny'" in ran.err and "-m" in ran.err


def test_a_memory_of_another_host(engram, taught, tmp_path):
    from hosts import tiny, tiny_tokenizer

    tiny("llama", seed=1).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    ran = engram("ask", PORT, "-M", taught, "-m", "other")
    assert ran.status == 2 and "was written for tiny" in ran.err


def test_a_damaged_memory(engram, taught, tmp_path):
    (tmp_path / taught / "ledger.sqlite").write_bytes(b"x" * 10_000)
    ran = engram("list", "-M", taught)
    assert ran.status == 1 and ran.err.count("\n") == 1


def test_the_environment_names_the_memory(engram, taught, monkeypatch):
    monkeypatch.setenv("ENGRAM_MEMORY", taught)
    assert engram("ask", PORT).out == "8443\n"


def test_text_from_a_file_cannot_steer_the_terminal(engram):
    words = ("--prompt", "a\x1b[2Jb", "--answer", "c")
    engram("teach", *words, "-M", "m", "--address", "exact")
    ran = engram("list", "-M", "m")
    assert "\x1b" not in ran.out and r"a\x1b[2Jb" in ran.out


def test_debug_shows_the_traceback(engram, monkeypatch, capsys):
    from engram_transformers.cli.main import main

    monkeypatch.setenv("ENGRAM_DEBUG", "1")
    assert main(["list", "-M", "none"]) == 2
    assert "Traceback" in capsys.readouterr().err


HELP = [["--help"], *([name, "--help"] for name in COMMANDS)]
_HEAVY = """
import sys
from engram_transformers.cli.main import main
assert main(sys.argv[1:]) == 0
heavy = {"torch", "transformers", "numpy", "rich", "sqlite3", "filelock"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def test_help_imports_nothing_heavy():
    code = _HEAVY.replace("assert main(sys.argv[1:]) == 0", f"[main(a) for a in {HELP!r}]")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("usage: engram") == len(HELP)


@pytest.mark.parametrize("line", ["list", "undo --list", "stats", "export -", "forget --all -y"])
def test_what_needs_no_model_imports_no_torch(taught, line, tmp_path):
    code = _HEAVY.replace(', "numpy", "rich", "sqlite3", "filelock"', "")
    command = [sys.executable, "-c", code, *line.split(), "-M", str(tmp_path / taught)]
    if line.startswith("forget"):
        command.append("--dry-run")
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_json_is_one_object_and_nothing_else(engram, taught):
    for line in ("list", "stats", "undo --list", "verify", "models"):
        words = line.split() + ([] if line == "models" else ["-M", taught])
        ran = engram(*words, "--json")
        assert isinstance(json.loads(ran.out), dict) and ran.out.count("\n") == 1 and not ran.err
