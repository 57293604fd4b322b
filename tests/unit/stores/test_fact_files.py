"""Files of facts: every shape, and everything that can be wrong with one."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
from pathlib import Path

import pytest

from engram_transformers.errors import FactFileError
from engram_transformers.stores.fact_export import lines_of
from engram_transformers.stores.fact_files import LONGEST_LINE, FactFile, Fault, Located
from engram_transformers.types import Fact

ONE = b'{"prompt": "p", "answer": "a"}\n'


def read(path: Path, content: bytes | None = None, **options) -> tuple[list[Fact], dict[str, str]]:
    """The facts of a file, and its faults by line (or index)."""
    if content is not None:
        path.write_bytes(content)
    found = list(FactFile(path, **options))
    faults = {f.where.removeprefix(str(path)): f.reason for f in found if isinstance(f, Fault)}
    return [each.fact for each in found if isinstance(each, Located)], faults


ROWS = {
    "own": ({"prompt": "p", "answer": "a", "paraphrases": ["q"], "category": "x"}, ("q",), ("q",)),
    "question": ({"question": "p", "answer": "a"}, (), ()),
    "zsre": ({"src": "p", "alt": "a", "pred": "b", "rephrase": "q"}, (), ("q",)),
    "wikibigedit": ({"prompt": "p", "target_new": "a", "rephrase_prompt": "q"}, (), ("q",)),
    "counterfact": ({"prompt": "p", "target_new": "a", "paraphrases": ["q"]}, (), ("q",)),
    "cloze": ({"context": "p", "continuation": " a"}, (), ()),
    "answers": ({"question": "p", "answers": ["a", "b"]}, (), ()),
    "chat": (
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "p"},
                {"role": "assistant", "content": " a"},
            ]
        },
        (),
        (),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_shapes(tmp_path: Path, name: str):
    row, taught, offered = ROWS[name]
    path = tmp_path / "f.jsonl"
    assert read(path, json.dumps(row).encode())[0] == [Fact("p", "a", taught)]
    assert read(path, with_paraphrases=True)[0] == [Fact("p", "a", offered)]


def test_templates_of_counterfact_and_mquake(tmp_path: Path):
    edit = {"prompt": "{} is in", "subject": "Angola", "target_new": {"str": "Asia", "id": "Q48"}}
    row = {"requested_rewrite": {**edit, "relation_id": "P30"}, "paraphrase_prompts": ["q"]}
    wanted = Fact("Angola is in", "Asia", (), "Angola", "P30")
    assert read(tmp_path / "a.jsonl", json.dumps(row).encode())[0] == [wanted]
    row = {"requested_rewrite": [edit, {**edit, "subject": "Chad"}]}
    facts, _ = read(tmp_path / "b.jsonl", json.dumps(row).encode())
    assert [fact.prompt for fact in facts] == ["Angola is in", "Chad is in"]


FAULTS = {
    b'{"prompt": " ", "answer": "a"}': "the prompt is empty",
    b'{"prompt": "p", "answer": ""}': "the answer is empty",
    b'{"prompt": "p"}': "found 'prompt', need prompt and answer",
    b'{"prompt": 1, "answer": "a"}': "prompt is a number, need a string",
    b'{"prompt": "p", "answer": null}': "answer is null",
    b'{"prompt": "p", "answer": "a", "paraphrases": [1]}': "paraphrases must be a list",
    b'{"prompt": "p", "answer": "a", "subject": []}': "subject is a list",
    b'{"prompt": "p", "target_new": {"id": "Q1"}}': "target_new is null",
    b'{"question": "p", "answers": []}': "answers is empty",
    b'{"messages": [{"role": "user", "content": "p"}]}': "messages has 1 turns",
    b'{"messages": "p"}': "messages must be a list",
    b'{"requested_rewrite": [3]}': "requested_rewrite holds a number",
    b"[]": "expected an object with prompt and answer, found a list",
    b'"p"': "found a string",
    b'{"prompt": "p", "ans': "not valid JSON: Unterminated string starting at column 17",
    b"hello": "not valid JSON",
    b"{" * 5000: "not valid JSON",
    b"[" * 200_000: "not JSON that can be read",
    b'{"prompt": "p\0", "answer": "a"}': "byte 14 is NUL",
    b'{"prompt": "p\\u0000", "answer": "a"}': "NUL character",
    b'{"prompt": "\xc3\xa9\xff", "answer": "a"}': "byte 15 is 0xff, which is no UTF-8",
    b'{"prompt": "' + b"x" * LONGEST_LINE + b'", "answer": "a"}': "longer than 1,048,576 bytes",
}


@pytest.mark.parametrize("line", FAULTS, ids=lambda line: line[:40].decode("latin-1"))
def test_a_faulty_line_is_named_and_reading_goes_on(tmp_path: Path, line: bytes):
    facts, faults = read(tmp_path / "f.jsonl", ONE + line + b"\r\n" + ONE)
    assert facts == [Fact("p", "a")] * 2
    assert list(faults) == [":2"]
    assert FAULTS[line] in faults[":2"]


def test_byte_order_mark_crlf_and_blank_lines(tmp_path: Path):
    content = b"\xef\xbb\xbf" + ONE.replace(b"\n", b"\r\n") + b"\r\n  \n" + ONE.strip()
    assert read(tmp_path / "f.jsonl", content) == ([Fact("p", "a")] * 2, {})


FILES = {
    "empty.jsonl": (b"", "is empty"),
    "blank.json": (b" \n ", "is empty"),
    "cut.json": (b'[{"prompt": "p", "ans', "not valid JSON: Unterminated string"),
    "number.json": (b"3", "is no JSON"),
    "object.json": (b'{"x": 1}', "holds an object; need a list of facts"),
    "nothing.json": (b"[]", "holds no facts"),
    "deep.json": (b"[" * 200_000, "not JSON that can be read"),
    "wide.json": ("[]".encode("utf-16"), "is UTF-16"),
    "text.txt": (b"hello\nworld\n", "neither JSONL nor JSON, nor CSV"),
    "columns.csv": (b"question,reply\n1,2\n", "has the columns 'question', 'reply'; need"),
    "cut.jsonl.gz": (gzip.compress(ONE)[:12], "cannot be read"),
    "no.gz": (b"\x1f\x8bnonsense", "cannot be read"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none(tmp_path: Path, name: str):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FactFileError, match=name.replace(".", r"\.")) as error:
        FactFile(tmp_path / name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_directories(tmp_path: Path):
    (tmp_path / "facts.jsonl").write_bytes(ONE)
    with pytest.raises(FactFileError, match=r"Did you mean .*facts\.jsonl"):
        FactFile(tmp_path / "fcats.jsonl")
    with pytest.raises(FactFileError, match="is a directory"):
        FactFile(tmp_path)


def test_json_documents(tmp_path: Path):
    row = {"prompt": "p", "answer": "a"}
    for document in ([row], {"facts": [row]}, row):
        for indent in (None, 2):
            content = json.dumps(document, indent=indent).encode()
            assert read(tmp_path / "f.json", content)[0] == [Fact("p", "a")]
    assert read(tmp_path / "lines.json", ONE + ONE)[0] == [Fact("p", "a")] * 2
    facts, faults = read(tmp_path / "g.json", json.dumps([row, 3]).encode())
    assert (len(facts), list(faults)) == (1, ["[1]"])


def test_csv(tmp_path: Path):
    content = (
        b"\xef\xbb\xbfPrompt, Answer ,paraphrases\r\n"
        b'p1,"a, 1",x | y\r\n'
        b'p2,a2,"[""u"", ""v|w""]"\r\n'
        b"p3\r\n"
        b"\xff,b,\r\n"
        b"\r\n"
        b'"two\r\nlines",b,\r\n'
        b" ,b,\r\n"
    )
    facts, faults = read(tmp_path / "f.csv", content)
    assert facts[:2] == [Fact("p1", "a, 1", ("x", "y")), Fact("p2", "a2", ("u", "v|w"))]
    assert facts[2] == Fact("two\r\nlines", "b")
    assert list(faults) == [":4", ":5", ":9"]
    assert faults[":4"] == "the row has 1 cells, the header 3"
    assert "0xff" in faults[":5"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_delimiters(tmp_path: Path, delimiter: str):
    content = f"answer{delimiter}prompt\na{delimiter}p\n".encode()
    assert read(tmp_path / "f.csv", content)[0] == [Fact("p", "a")]


def test_gzip_by_content_and_cut_in_the_middle(tmp_path: Path):
    assert read(tmp_path / "f.jsonl", gzip.compress(ONE * 3))[0] == [Fact("p", "a")] * 3
    lines = b"".join(b'{"prompt": "%d", "answer": "a"}\n' % i for i in range(40_000))
    facts, faults = read(tmp_path / "g.jsonl.gz", gzip.compress(lines)[:-20_000])
    assert len(facts) > 1000
    assert [reason for reason in faults.values() if "cannot be read on" in reason]


def test_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ONE + b"x\n" + ONE)))
    found = list(FactFile("-"))
    assert [type(each) for each in found] == [Located, Fault, Located]
    assert found[1].where == "stdin:2"


def test_a_large_file_is_streamed(tmp_path: Path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(ONE * 200_000)
    tracemalloc.start()
    assert sum(1 for _ in FactFile(path)) == FactFile(path).count() == 200_000
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_an_export_reads_back(tmp_path: Path, kind: str):
    facts = [
        Fact(" p ", 'a\n,"x" ', ("p|q", "[r"), "s", "r", "src"),
        Fact("é\u2028ß\r\n", "=1+1"),
        Fact("[p", "{}", ("[1]",)),
    ]
    path = tmp_path / f"f.{kind}"
    path.write_text("".join(lines_of(facts, kind)), encoding="utf-8", newline="")
    assert read(path) == (facts, {})
