"""`introspect memory-inject`: sections, keys, files, both routes, bad input."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from engram_transformers.errors import BadInput
from engram_transformers.introspection import injection
from engram_transformers.introspection.controls import CONTROLS
from engram_transformers.introspection.injected import Asked, beside, injected_fact, result_of
from engram_transformers.introspection.recognition import THRESHOLDS
from engram_transformers.memories.rank_one import RankOneConfig
from engram_transformers.models.neutral import NEUTRAL
from hosts import tiny, tiny_tokenizer

COMMAND = ("introspect", "memory-inject")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path_factory.getbasetemp() / "moments"))


def test_the_sections_are_those_of_the_seed_and_everything_is_put_back(engram: Any) -> None:
    ran = engram(*COMMAND, "--fact", "7*8=42", "-l", "0", "--test", "7*8=|8*7=|Hello",
                 "--strength", "0.5", "-o", "result.json")  # fmt: skip
    rule = "=" * 70
    assert ran.out.startswith(f"{rule}\nFACT INJECTION\n{rule}\nInjecting: 7*8=42 at layer 0\n")
    for line in ("\nBefore injection:\n", "\nAfter injection:\n", "  7*8= → ", "  8*7= → ",
                 "  Hello → ", "Injection strength: 0.5\n", "Affected layers: [0]\n",
                 "of 50 (95 % interval", "bit for bit what they were"):  # fmt: skip
        assert line in ran.out
    found = json.loads(Path("result.json").read_text())
    assert found["undo_exact"] and found["affected_layers"] == [0] and found["layer"] == 0
    assert found["controls_unchanged"]["n"] == len(found["controls"]) == len(CONTROLS) == 50
    groups = {one["prompt"]: one["group"] for one in found["answers"]}
    assert groups["7*8="] == "fact" and groups["8*7="] == "partner" and groups["7*9="] == "near"
    assert groups["7 * 8 ="] == "reworded" and groups["Hello"] == "test"
    first = found["answers"][0]
    assert {"answer", "logprob", "probability"} <= first["after"].keys()
    assert first["fact"] == "7*8=" and first["before"]["probability_first"] >= 0
    assert found["other_prompts_injected"]["n"] == 4  # swapped, two near, and Hello
    assert re.search(r"\n  [01] of 1 prompts with operands swapped unchanged\n", ran.out)
    # What is random cannot say anything at will; that is no success then.
    assert ran.status == (0 if found["answers"][0]["status"] == "injected" else 1)
    assert [Path(file).name for file in found["edit_files"]] == [
        "result.edit.safetensors",
        "result.edit.json",
    ]
    assert json.loads(Path("result.edit.json").read_text())["strength"] == 0.5


@pytest.mark.parametrize(
    "line",
    [
        'lazarus introspect memory-inject -m model --fact "7*8=42" --test "7*8=|8*7=|7*9=" '
        "-o injection_result.json",
        'lazarus introspect memory-inject -m model --fact "France capital=Berlin" '
        '--test "The capital of France is|Paris is the capital of|Berlin is in"',
    ],
)
def test_the_examples_of_the_seed_run(engram: Any, host_folder: Path, line: str) -> None:
    Path("model").symlink_to(host_folder)
    argv = shlex.split(line)
    ran = engram(*argv[1:])
    # What is random cannot say anything at will.
    assert ran.status in (0, 1) and "Undone: weights and logits" in ran.out
    for prompt in argv[argv.index("--test") + 1].split("|"):
        assert ran.out.count(f"  {prompt} → ") == 2
    assert Path("injection_result.edit.json").exists() == ("-o" in argv)


def test_a_store_says_the_answer_and_changes_no_weight_and_no_control_prompt(engram: Any) -> None:
    ran = engram(*COMMAND, "--fact", "Which port does billing use? => 8443", "--route", "store",
                 "--json")  # fmt: skip
    assert ran.status == 0 and ran.json["affected_layers"] == [] and ran.json["undo_exact"]
    assert ran.json["answers"][0]["after"]["answer"] == "8443"
    assert ran.json["controls_unchanged"]["value"] == 1.0
    assert ran.json["answers"][0]["after"]["logprob"] > ran.json["answers"][0]["before"]["logprob"]


def test_a_host_whose_experts_are_fused_is_told_what_it_can_do(engram: Any, tmp_path: Path) -> None:
    tiny("mixtral").save_pretrained(tmp_path / "host")
    tiny_tokenizer().save_pretrained(tmp_path / "host")
    trace = ("introspect", "trace", "--prompt", "The door is", "--subject", "door")
    for argv, advice in (
        ((*COMMAND, "--fact", "7*8=42"), "use --route store"),
        ((*trace, "--answer", "red", "--kind", "mlp"), "use --kind block"),
    ):
        ran = engram(*argv, "-m", "host")
        assert ran.status == 2 and f"its experts are fused; {advice}" in ran.err
        assert "place=" not in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "nothing to inject"),
        (("--fact", "7*8="), "has no answer"),
        (("--fact", "France"), "has no answer"),
        (("--fact", "=42"), "has no prompt"),
        (("--fact", "7*8=42", "-l", "7"), "the host has 2 blocks, 0 to 1"),
        (("--fact", "7*8=42", "-l", "x"), "no layer"),
        (("--fact", "7*8=42", "--strength", "0"), "strength is 0.0"),
        (("--fact", "7*8=42", "--route", "store", "-l", "99"), "--layer say how weights"),
        (("--fact", "7*8=42", "--route", "store", "--strength", "1"), "--strength say how"),
        (("--fact", "7*8=42", "--route", "store", "--method", "rome", "--far"), "--method and --f"),
        (("--fact", "7*8=42", "--subject", "a", "--subject", "b"), "2 subjects for 1 facts"),
    ],
)
def test_bad_input_is_one_line(engram: Any, options: tuple[str, ...], words: str) -> None:
    ran = engram(*COMMAND, *options)
    assert ran.status == 2 and words in ran.err


def test_what_the_model_says_already_is_refused(
    engram: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    green = tiny_tokenizer()(" green")["input_ids"]
    monkeypatch.setattr(injection, "generate", lambda *_, **__: [green])
    ran = engram(*COMMAND, "--fact", "The door is => Green")
    assert ran.status == 2 and "already" in ran.err


def test_what_the_model_says_and_goes_on_after_is_refused_in_plain_text(
    engram: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = tiny_tokenizer()(" green. The answer is")["input_ids"]
    monkeypatch.setattr(injection, "generate", lambda _, prompts, **__: [going_on] * len(prompts))
    ran = engram(*COMMAND, "--fact", "The door is => Green")
    assert ran.status == 2 and "goes on: 'green. The answer is'" in ran.err and "(P = " in ran.err


def test_what_the_model_says_in_a_chat_is_refused() -> None:
    fact = injected_fact("What colour is the door? => Green")
    said = said_to("Green", "The door is green. It stands open.")
    with pytest.raises(BadInput, match="already"):
        injection._check_new([fact], [said], ["chat"])
    injection._check_new([fact], [said_to("Green", "It is red. The wall is green.")], ["chat"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--fact", "7*8=42", "--fact", "7*8=43"), "'42' and '43'"),
        (("--fact", "7*8=42", "--strength", "inf"), "strength is inf"),
        (("--fact", "7*8=42", "--paraphrase", " "), "empty"),
        (("--fact", f"{'word ' * 600}=> 42"), "the host reads"),
        (("--fact", "Foo is => 42", "--subject", "Paris"), "'Paris' is not in 'Foo is'"),
        (("--fact", "7*8=42", "-o", "/proc/nothing.json"), "cannot be written"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(
    engram: Any, options: tuple[str, ...], told: str
) -> None:
    ran = engram(*COMMAND, *options)
    assert ran.status in (1, 2) and told in ran.err and len(ran.err.splitlines()) == 1


def test_the_usual_edit_is_that_of_a_memory_and_far_is_told_apart(
    engram: Any, tmp_path: Path
) -> None:
    for further, usual in (((), injection.NEAR), (("--far",), RankOneConfig())):
        ran = engram(*COMMAND, "--fact", "The lamp is => 42", "--json", *further)
        assert ran.json["method"] == usual.method == "memit"


def test_an_interrupted_injection_keeps_no_files(
    engram: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(injection.Asker, "same", stop)
    ran = engram(*COMMAND, "--fact", "The lamp is => 42", "-o", str(tmp_path / "found.json"))
    assert ran.status == 130 and not list(tmp_path.glob("found*"))


def said_to(wanted: str, answer: str, prompt: str = "") -> injection.Said:
    return injection._said(prompt, answer, wanted, logprob=-1.0, first=0.5)


def answered(group: str, before: str, after: str, prompt: str = "7*9=", fact: int = 0) -> Any:
    said = (said_to("42", text, prompt) for text in (before, after))
    return injection.Answered(Asked(prompt, group, fact), "plain", *said)


@pytest.mark.parametrize(
    ("before", "after", "status", "elsewhere"),
    [
        ("63", "42", "injected", True),
        ("63", "42) The answer is: 42 (", "begun", True),
        ("63", "42.5", "changed", False),
        ("63", "421", "changed", False),
        ("63", "63", "unchanged", False),
        ("42", "42", "already so", False),
        ("42 is", "42 or", "changed", False),
    ],
)
def test_an_answer_that_begins_as_injected_is_told_from_another(
    before: str, after: str, status: str, elsewhere: bool
) -> None:
    one = answered("near", before, after)
    assert (one.status, one.elsewhere) == (status, elsewhere)
    assert not answered("reworded", before, after).elsewhere
    # Where it is right it is no leak.
    assert not answered("near", before, after, prompt="6*7=").elsewhere


def test_what_was_right_and_is_wrong_now_is_counted() -> None:
    found = [
        answered("fact", "56", "42", "7*8="),
        answered("partner", "56", "42", "8*7="),
        answered("near", "63 and", "63", "7*9="),
        answered("near", "60", "42", "8*8="),
        answered("test", "x", "y", "Hello"),
    ]
    about = dict.fromkeys(injection.Injection.__dataclass_fields__)
    made = injection.Injection(**{**about, "answered": tuple(found)})  # type: ignore[arg-type]
    assert (made.broken.value, made.broken.n) == (0.5, 2)
    assert (made.elsewhere.value, made.elsewhere.n) == (0.5, 4)


def test_a_test_is_compared_with_the_answers_of_all_facts() -> None:
    facts = [injected_fact("7*8=42"), injected_fact("The owner is => Ada")]
    asked = injection._more(facts, ["Hello", "The owner is", "7*9="], [])
    tests = [(one.prompt, one.fact) for one in asked if one.group == "test"]
    assert tests == [("Hello", 0), ("Hello", 1)]
    ada = injection.Answered(asked[1], "plain", said_to("Ada", "x"), said_to("Ada", "Ada"))
    (one,) = injection._once([answered("test", "x", "Ada", "Hello"), ada])
    assert one.asked.fact == 1 and one.status == "injected"


@pytest.mark.parametrize(
    ("text", "prompt", "answer"),
    [
        ("7*8=42", "7*8=", "42"),
        ("3 + 4 =8", "3 + 4 =", "8"),
        ("2+3*4=15", "2+3*4=", "15"),
        ("1.5*2=4", "1.5*2=", "4"),
        ("France capital=Berlin", "France capital", "Berlin"),
        ("Is a=b? => no", "Is a=b?", "no"),
        ("x = y = z", "x = y", "z"),
    ],
)
def test_a_fact_is_divided_at_its_last_equals_sign(text: str, prompt: str, answer: str) -> None:
    fact = injected_fact(text)
    assert (fact.prompt, fact.answer) == (prompt, answer)
    with pytest.raises(BadInput, match="QUERY=ANSWER"):
        injected_fact("=>")


def test_what_is_asked_beside_a_fact() -> None:
    asked = {one.prompt: one.group for one in beside(injected_fact("7*8=42"), 0)}
    assert asked["8*7="] == "partner" and asked["7*9="] == asked["8*8="] == "near"
    assert "2/3=" not in {one.prompt for one in beside(injected_fact("3/2=1"), 0)}
    asked = {one.prompt: one.group for one in beside(injected_fact("Lima is in=Chad"), 0)}
    assert set(asked.values()) <= {"near", "reworded"} and "lima is in" in asked


@pytest.mark.parametrize(
    ("text", "partner", "near", "reworded"),
    [
        ("7 * 8 = 42", ["8 * 7 ="], ["7 * 9 =", "8 * 8 ="], "7*8="),
        ("1.5*2=4", ["2*1.5="], ["1.5*3=", "2.5*2="], "1.5 * 2 ="),
        ("6/2 => 4", [], ["6/3", "7/2"], "What is 6/2?"),
        ("2+3*4=15", [], [], "2 plus 3 times 4 is"),
    ],
)
def test_what_is_asked_beside_an_operation_is_written_as_it_is(
    text: str, partner: list[str], near: list[str], reworded: str
) -> None:
    fact = injected_fact(text)
    asked = list(beside(fact, 0))
    assert [one.prompt for one in asked if one.group == "partner"] == partner
    assert [one.prompt for one in asked if one.group == "near"] == near
    words = [one.prompt for one in asked if one.group == "reworded"]
    assert reworded in words and fact.prompt not in words
    assert fact.subject == fact.prompt


def test_results_of_operations() -> None:
    prompts = ["7*8=", "1.5*2=", "9-10 =", "6/2=", "7/2=", "1/0=", "2+3*4=", "Hello"]
    expected = ["56", "3", "-1", "3", None, None, None, None]
    assert [result_of(prompt) for prompt in prompts] == expected


def test_who_names_no_subject_is_told(engram: Any) -> None:
    ran = engram(*COMMAND, "--fact", "the capital=Berlin", "--route", "store")
    assert "No subject was found in 'the capital'" in ran.out and "pass --subject" in ran.out


def test_control_prompts_are_fifty_and_none_is_read_for_the_statistics() -> None:
    assert len(set(CONTROLS)) == 50 and not set(CONTROLS) & set(NEUTRAL)


def test_a_store_tells_what_it_would_recognise_at_other_thresholds(engram: Any) -> None:
    ran = engram(*COMMAND, "--fact", "Which port does Foo use? => 42", "--route", "store", "--json")
    points = ran.json["threshold_curve"]
    assert [point["threshold"] for point in points] == list(THRESHOLDS)
    asked = {one["prompt"] for one in ran.json["answers"]}
    assert {point["wordings"]["n"] + point["others"]["n"] for point in points} == {len(asked) + 50}
    for side in ("wordings", "others"):
        shares = [point[side]["value"] for point in points]
        assert shares == sorted(shares, reverse=True)
    assert points[-1]["wordings"]["value"] > 0
    shown = engram(*COMMAND, "--fact", "Which port does Foo use? => 42", "--route", "store")
    assert "taken for a fact's from probability 0.05 on: " in shown.out
    edited = engram(*COMMAND, "--fact", "The lamp is => 42", "--json")
    assert edited.json["threshold_curve"] == []
