"""Teaching from the command line: receipts, refusals, conflicts, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_a_receipt(engram, facts_file):
    ran = engram("teach", str(facts_file), "-M", "mem", "--address", "exact", "--json")
    assert ran.status == 0 and not ran.err
    receipt = ran.json
    assert len(receipt["taught"]) == 3 and receipt["checked"] and receipt["write"] == 1
    assert receipt["bytes"] > 0 and receipt["seconds"] > 0
    again = engram("teach", str(facts_file), "-M", "mem", "--json").json
    assert (again["taught"], again["known"]) == ([], receipt["taught"])


def test_a_receipt_for_people(engram, facts_file):
    facts_file.write_text(facts_file.read_text() + '{"prompt": "x"}\n')
    ran = engram("teach", str(facts_file), "-M", "mem", "--address", "exact")
    assert ran.status == 1
    assert ran.out.startswith("3 taught, 1 refused\n")
    assert f"refused: {facts_file}:4: found 'prompt', need prompt and answer" in ran.out


def test_refusals_of_the_host_name_the_line(engram, tmp_path):
    path = tmp_path / "long.jsonl"
    rows = [{"prompt": "p", "answer": "a"}, {"prompt": "q", "answer": "word " * 600}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = engram("teach", str(path), "-M", "mem", "--address", "exact", "--json")
    assert ran.status == 1
    [refused] = ran.json["refused"]
    assert refused["where"] == f"{path}:2" and "tokens" in refused["reason"]
    assert refused["fact"]["prompt"] == "q"


def test_one_fact_without_a_file(engram):
    words = ("--prompt", "Who?", "--answer", "Ada", "--paraphrase", "Who is it?")
    ran = engram("teach", *words, "-M", "mem", "--address", "exact", "--why", "a reason")
    assert ran.status == 0
    assert engram("ask", "Who is it?", "-M", "mem").out == "Ada\n"
    assert engram("undo", "--list", "-M", "mem", "--json").json["writes"][0]["why"] == "a reason"


@pytest.mark.parametrize(
    ("choice", "status", "answer"),
    [("replace", 0, "1"), ("keep", 0, "8443"), ("reject", 1, "8443")],
)
def test_conflicts(engram, taught, choice, status, answer):
    question = "Which port does billing use?"
    ran = engram(
        "teach",
        "--prompt",
        question,
        "--answer",
        "1",
        "-M",
        taught,
        "--on-conflict",
        choice,
        "--json",
    )
    assert ran.status == status
    counts = [len(ran.json[name]) for name in ("replaced", "kept", "refused")]
    assert counts == [choice == name for name in ("replace", "keep", "reject")]
    assert engram("ask", question, "-M", taught).out == f"{answer}\n"


def test_a_dry_run_writes_nothing(engram, facts_file, taught, tmp_path):
    ran = engram("teach", str(facts_file), "-M", "new", "--address", "exact", "--dry-run")
    assert ran.status == 0 and ran.out.startswith("3 would be taught")
    assert not (tmp_path / "new").exists()
    ran = engram("teach", "--prompt", "x", "--answer", "y", "-M", taught, "--dry-run", "--json")
    assert ran.json["dry_run"] and len(ran.json["taught"]) == 1
    assert engram("stats", "-M", taught, "--json").json["active"] == 3


def test_limit_and_no_check(engram, facts_file):
    ran = engram(
        "teach",
        str(facts_file),
        "-M",
        "m",
        "--address",
        "exact",
        "--limit",
        "2",
        "--no-check",
        "--json",
    )
    assert len(ran.json["taught"]) == 2 and not ran.json["checked"]


def test_held_out_rephrasings_are_taught_on_request_only(engram, tmp_path):
    row = {"src": "Who?", "alt": "Ada", "rephrase": "Who is it?"}
    (tmp_path / "z.jsonl").write_text(json.dumps(row))
    engram("teach", "z.jsonl", "-M", "a", "--address", "exact")
    engram("teach", "z.jsonl", "-M", "b", "--address", "exact", "--with-paraphrases")
    found = [engram("list", "-M", m, "--json").json["facts"][0] for m in ("a", "b")]
    assert "paraphrases" not in found[0] and found[1]["paraphrases"] == ["Who is it?"]


def test_options_of_a_memory_are_fixed(engram, taught, facts_file):
    ran = engram("teach", str(facts_file), "-M", taught, "--address", "meaning")
    assert ran.status == 2 and "address" in ran.err


def test_an_option_of_another_type_is_one_line_and_makes_no_memory(engram, facts_file, tmp_path):
    ran = engram("teach", str(facts_file), "-M", "mem", "--set", "candidates=many")
    assert ran.status == 2 and "candidates is 'many'; use a whole number" in ran.err
    assert not (tmp_path / "mem").exists()


def test_export_and_import_round_trip(engram, taught, tmp_path):
    before = engram("list", "-M", taught, "--json").json["facts"]
    for kind in ("jsonl", "json", "csv"):
        assert engram("export", f"out.{kind}", "-M", taught).status == 0
        assert engram("import", f"out.{kind}", "-M", kind, "--address", "exact").status == 0
        assert engram("list", "-M", kind, "--json").json["facts"] == before
    assert engram("export", "out.csv", "-M", taught).status == 2
    assert engram("export", "out.csv", "-M", taught, "--force", "--json").json["facts"] == 3
    lines = engram("export", "-", "-M", taught).out.splitlines()
    assert [json.loads(line)["answer"] for line in lines] == ["8443", "Grace Hopper", "Green"]


def test_a_full_disk_is_one_line(engram, facts_file, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "mem")

    monkeypatch.setattr("engram_transformers.api.load", full)
    ran = engram("teach", str(facts_file), "-M", "mem")
    assert (ran.status, ran.err) == (1, "engram: mem: No space left on device\n")


COUNT = 4000
"Facts that are still being taught when the first of them are seen to be stored."


def test_interrupted_and_run_again(host_folder: Path, tmp_path: Path):
    rows = [{"prompt": f"What is number {i}?", "answer": f"{i}{i}"} for i in range(COUNT)]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = "from engram_transformers.cli.main import run; run()"
    words = ["teach", "many.jsonl", "-m", str(host_folder), "-M", "m", "--address", "exact"]
    command = [sys.executable, "-c", code, *words, "--json"]
    # Where the tests run in the background of a shell, programs are started deaf to Ctrl-C.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    heeding = [sys.executable, "-c", heed + code, *words, "--json"]
    first = subprocess.Popen(
        heeding, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait_for_a_write(tmp_path / "m", first)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=300)
    assert first.returncode == 130, err
    # On a slow machine lines of progress come before it.
    assert err.splitlines()[-1].startswith("engram: interrupted; "), err
    stored = json.loads(out)
    assert stored["interrupted"] and 0 < len(stored["taught"]) < COUNT
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    receipt = json.loads(second.stdout)
    assert receipt["known"] == stored["taught"]
    assert len(receipt["known"]) + len(receipt["taught"]) == COUNT


def _wait_for_a_write(memory: Path, process: subprocess.Popen[str]) -> None:
    from engram_transformers.stores import Directory, is_memory

    while process.poll() is None:
        if is_memory(memory):
            with Directory.open(memory) as found:
                if found.writes():
                    return
        time.sleep(0.05)
    pytest.fail(f"it ended by itself: {process.communicate()}")


def test_a_reader_that_goes_away(engram, taught, host_folder, tmp_path):
    code = "from engram_transformers.cli.main import run; run()"
    command = [sys.executable, "-c", code, "export", "-", "-M", str(tmp_path / taught)]
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, b"")
