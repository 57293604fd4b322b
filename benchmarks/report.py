"""Turns the stored results into the tables of the README and of pages in docs.

`<!-- results: compare -->` holds the comparison of memories, `glance` a part of it, `keyed` that on
facts keyed by an entity or a user, `main` and `speed` what the lookup memory does alone,
`unrelated` what memories do on ten thousand prompts that are none of theirs, `edit_order` what they
do with edits that contradict one another or are taken back, `engram_peft` the Engram memory beside
another library's, `engram_time` what it costs, `easyedit` the rank-one memory beside another
library's methods, `edits` the memories that write one edit at a time, `memoir` and what begins like
it the MEMOIR memory alone, `injection` facts put in by `introspect memory-inject`, `gates` how well
learned gates tell look-ups, `studies` which studies were run; these have pages of their own,
`docs/studies/NAME.md`.

python -m benchmarks.report            rewrite them
python -m benchmarks.report --check    fail if one is out of date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import edit_order, gates, memoir_layers, memoir_tables
from benchmarks.easyedit_table import tables as easyedit_tables
from benchmarks.engram_peft_table import tables as engram_peft_tables
from benchmarks.injection import FACTS, grouped
from benchmarks.unrelated import tables as unrelated_tables
from engram_transformers.evaluation.metrics import share
from engram_transformers.evaluation.report import master_table
from engram_transformers.evaluation.result import read_results
from engram_transformers.studies.page import given, markdown
from engram_transformers.studies.result import RESULT, read_result

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
INJECTED = {
    "an edit": "injection.json",
    "an edit, `--far`": "injection_far.json",
    "a store": "injection_store.json",
}
COMPARED = RESULTS / "compare"
EDITS = RESULTS / "edits"
MEMOIR = RESULTS / "memoir"
STUDIES = RESULTS / "studies"
PAGES = (
    "results",
    "evaluation",
    "studies",
    "introspection",
    "routing",
    "memories/engram",
    "memories/codebook",
    "memories/memoir",
    "memories/rank_one",
)
GLANCE = ("zsre", "probes")
"Tasks of the README, which has room for few."
ORDER = ("zsre", "wikibigedit", "counterfact", "wikidata", "stack_faq", "keys")
KEYED = ("entity_keyed", "user_preferences")
"Tasks that have a table of their own: one of all is wide enough."
TITLES = {
    "zsre": "ZsRE",
    "wikibigedit": "WikiBigEdit",
    "counterfact": "CounterFact",
    "wikidata": "Wikidata cloze",
    "stack_faq": "StackFAQ",
    "keys": "random keys",
}
MARK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    tables = {
        "main": main_table(),
        "speed": speed_table(),
        "failures": failures(),
        "compare": compare_table(lambda task: task not in KEYED),
        "glance": compare_table(lambda task: task in GLANCE),
        "keyed": compare_table(lambda task: task in KEYED),
        "engram_peft": stored("engram_peft", engram_peft_tables),
        "engram_time": engram_time_tables(),
        "easyedit": stored("easyedit", easyedit_tables),
        "studies": studies_table(),
        "gates": stored("gates", gates.table),
        "edits": edits_table(),
        "memoir": memoir_table(),
        "rank_one": rank_one_table(),
        "memoir_masks": stored("memoir_masks", memoir_tables.masks),
        "memoir_capacity": stored("memoir_capacity", memoir_tables.capacity),
        "memoir_layers": stored("memoir_layers", memoir_layers.table),
        "mask_search": stored("mask_search", memoir_tables.search),
        "unrelated": stored("unrelated", unrelated_tables),
        "edit_order": stored("edit_order", edit_order.table),
        "injection": injection_table(),
    }
    stale = []
    for path in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in PAGES)):
        text = path.read_text(encoding="utf-8")
        new = MARK.sub(lambda m: f"{m[1]}{tables[m[2]]}\n{m[3]}", text)
        if new != text:
            stale.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
    for page, text in studies().items():
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            stale.append(page.name)
            if not check:
                page.parent.mkdir(exist_ok=True)
                page.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python -m benchmarks.report")


def studies() -> dict[Path, str]:
    """The page of each study that has a stored result."""
    folders = sorted(path.parent for path in STUDIES.glob(f"*/{RESULT}"))
    pages = {folder: ROOT / "docs" / "studies" / f"{folder.name}.md" for folder in folders}
    return {page: markdown(read_result(at), at, page) for at, page in pages.items()}


def engram_time_tables() -> str:
    """What an Engram costs where it does not act, and what hashing takes of the host's pass."""
    idle, hashed = RESULTS / "engram_idle.json", RESULTS / "engram_hash_share.json"
    parts = [
        tables(json.loads(path.read_text()))
        for path, tables in ((idle, _idle_table), (hashed, _hash_table))
        if path.exists()
    ]
    return "\n\n".join(parts) or "not measured yet"


def _idle_table(found: dict[str, Any]) -> str:
    lines = [
        "| decoding | ms a token, median (quartiles) | over the bare host |",
        "|---|---|---|",
    ]
    for name, spent in found["ms_per_token"].items():
        over = found["over_bare"].get(name)
        lines.append(f"| {name} | {_spread(spent)} | {_spread(over) if over else ''} |")
    told = (
        f"{found['rounds']} texts of {found['tokens']} tokens, in turn after every token, "
        "median (quartiles) of single steps, CPU time."
    )
    return "\n".join([*lines, "", f"{told} {_origin(found)}"])


def _hash_table(found: dict[str, Any]) -> str:
    lengths = list(found["host_ms"])
    heads = " | ".join(f"{length} tokens" for length in lengths)
    lines = [
        f"| hashing a prompt, % of the host's pass | {heads} |",
        f"|---{'|---' * len(lengths)}|",
    ]
    for layout, by_length in found["layouts"].items():
        cells = " | ".join(_spread(by_length[length]["percent"]) for length in lengths)
        lines.append(f"| {layout} | {cells} |")
    cells = " | ".join(_spread(found["host_ms"][length]) for length in lengths)
    lines.append(f"| the host's pass, ms | {cells} |")
    told = f"{found['rounds']} rounds in turns, median (quartiles) of CPU time."
    return "\n".join([*lines, "", f"{told} {_origin(found)}"])


def studies_table() -> str:
    """The studies that have been run, each with its page and what its units were."""
    lines = [
        "| page | question | options, where not the defaults | units done |",
        "|---|---|---|---|",
    ]
    for page in studies():
        found = read_result(STUDIES / page.stem)
        units, options = found["units"], ", ".join(f"`{each}`" for each in given(found))
        lines.append(
            f"| [{page.stem}](studies/{page.name}) | {found['question']} | {options} | "
            f"{units['done']} of {units['planned']} |"
        )
    return "\n".join(lines)


def results() -> list[dict[str, Any]]:
    """The stored results of whole sets, in reading order."""
    found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("main_job/*.json")}
    names = sorted(found, key=lambda name: (_place(name), name))
    return [{"label": name, **found[name]} for name in names]


def main_table() -> str:
    """What was taught, what was asked, what was answered, what stayed silent."""
    lines = [
        "| set | facts | asked | n | exact (95 % interval) | wrong fact | ended by itself |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results():
        for group, score in result["asked"].items():
            lines.append(
                f"| {_title(result)} | {result['facts']} | {group} | {score['n']} | "
                f"{_share(score['exact'])} | {_point(score['wrong_fact'])} | "
                f"{_point(score['stopped'])} |"
            )
        lines += _one_pass_row(result)
    lines += [
        "",
        "| set | prompts that no fact answers | n | logits bit-equal (95 % interval) |",
        "|---|---|---|---|",
    ]
    for result in results():
        for group, score in result["silent"].items():
            lines.append(
                f"| {_title(result)} | {group} | {score['n']} | {_share(score['bit_equal'])} |"
            )
    return "\n".join(lines)


def _one_pass_row(result: dict[str, Any]) -> list[str]:
    """What a single pass shows: each token of the answer, and its end, is the first choice."""
    seen, receipt = result.get("one_pass", {"n": 0}), result["receipt"]
    if receipt["checked"]:
        # Teaching itself asked for every fact, and refused those that did not hold.
        seen = {"n": result["facts"], "holds": share(receipt["taught"], result["facts"])}
    if not seen["n"]:
        return []
    return [
        f"| {_title(result)} | {result['facts']} | taught (one pass) | {seen['n']} | "
        f"{_share(seen['holds'])} | | |"
    ]


def speed_table() -> str:
    """Ratios from one run, measured in turns."""
    path = RESULTS / "speed.json"
    if not path.exists():
        return "not measured yet"
    speed = json.loads(path.read_text())
    teaching, decoding, asking = speed["teaching"], speed["decoding"], speed["asking"]
    many, few = decoding["facts"]["many"], decoding["facts"]["few"]
    rows = [
        (f"decoding with {many:,} facts attached that do not fire, over the bare host",
         _spread(decoding["idle_over_bare"])),
        (f"time per token with {many:,} facts, over that with {few:,}",
         _spread(decoding["many_over_few"])),
        ("teaching with the check, over one forward pass over the same tokens",
         _spread(teaching["checked_over_one_forward_pass"])),
        ("facts a second, checked", f"{teaching['checked_facts_per_second']}"),
        ("facts a second, unchecked, by exact address",
         f"{teaching['unchecked_exact_facts_per_second']:,}"),
        ("finding what a prompt means, ms", _spread(asking["ms_to_find_the_meaning"])),
        ("the host's own reading of such a prompt, ms",
         _spread(asking["ms_of_the_host_to_read_the_prompt"])),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| measured | median (quartiles) |\n|---|---|\n{table}\n\n{_origin(speed)}"


def compare_table(wanted: Callable[[str], bool]) -> str:
    """The memories beside each other on some tasks, as `engram report` shows them at a glance."""
    found = read_results(COMPARED) if COMPARED.is_dir() else []
    some = [one for one in found if wanted(one["task"])]
    return master_table(some) if some else "not measured yet"


EDIT_COLUMNS = {
    "tf_rel": "forced, taught",
    "tf_gen": "forced, rephrased",
    "gen_rel": "exact, taught",
    "gen_gen": "exact, rephrased",
    "gen_stop": "ends by itself",
    "loc_bitexact": "unrelated, bit-equal",
    "undo_exact": "undo exact",
    "cpu_seconds_per_fact": "processor s an edit",
    "bytes_per_fact": "bytes a fact",
}


def edits_table() -> str:
    """Memories that were taught one edit at a time, and then asked for all of them."""
    found = read_results(EDITS) if EDITS.is_dir() else []
    if not found:
        return "not measured yet"
    found = sorted(found, key=lambda one: (one["task"] != "zsre", one["task"], one["n"]))
    lines = ["| set, memory | held | " + " | ".join(EDIT_COLUMNS.values()) + " |"]
    lines.append("|---" * (2 + len(EDIT_COLUMNS)) + "|")
    for one in found:
        cells = [_edit_cell(name, one.get(name)) for name in EDIT_COLUMNS]
        name = f"{one['task']}, {one['memory']}/{one['variant']}"
        lines.append(f"| {name} | {one.get('taught', 0)} of {one['n']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Each with its 95 % interval and n.", "", *_origins(found)])


def memoir_table() -> str:
    """The MEMOIR memory by itself: many edits one at a time, and what each of its parts is for."""
    among = [one for one in read_results(EDITS) if one["memory"] == "memoir"]
    found = [*(read_results(MEMOIR) if MEMOIR.is_dir() else []), *among]
    table = memoir_tables.edits(found)
    return "\n".join([table, "", "Each with its 95 % interval.", "", *_origins(found)])


def rank_one_table() -> str:
    """Rank-one edits, one after another: how many are held, and when they collapse."""
    found = [one for one in read_results(EDITS) if one["memory"] == "rank_one"]
    return "\n".join([memoir_tables.edits(found), "", *_origins(found)])


def _origins(found: Sequence[dict[str, Any]]) -> list[str]:
    """Where results come from, those from one place together."""
    origins: dict[str, list[str]] = {}
    for one in found:
        name = f"{one['task']}, {one['memory']}/{one['variant']}"
        origins.setdefault(_origin(one), []).append(name)
    return [f"* {'; '.join(names)}: {origin}" for origin, names in origins.items()]


def _edit_cell(name: str, score: dict[str, float] | None) -> str:
    if score is None:
        return ""
    if name == "bytes_per_fact":
        return f"{score['value']:,.0f}"
    interval = f"{score['low']:.2f} to {score['high']:.2f}"
    return f"{score['value']:.2f} <sub>{interval}, n {score['n']:,}</sub>"


def stored(name: str, tables: Callable[[Any], str]) -> str:
    """What is shown of a benchmark's own file, and where that comes from if it is one run's."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return "not measured yet"
    found = json.loads(path.read_text())
    if "provenance" in found:
        return f"{tables(found)}\n\n{_origin(found)}"
    parts = {k: v for k, v in found.items() if isinstance(v, dict) and "provenance" in v}
    origins = (f"* {name}: {_origin(one)}" for name, one in parts.items())
    return "\n\n".join([tables(found), *filter(None, ["\n".join(origins)])])


def injection_table() -> str:
    """Facts that were injected one by one, and what else each changed."""
    paths = {name: RESULTS / file for name, file in INJECTED.items()}
    found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    if not found:
        return "not measured yet"
    lines = [
        "| fact | by | said, and ended | reworded | swapped as before | near as before "
        "| control prompts as before | s | processor s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in found.items():
        lines += [_injected_row(name, one) for one in result["facts"]]
    lines.append("")
    for name, result in found.items():
        every = _kept(result["controls_unchanged"])
        lines.append(f"* {name}, control prompts of all facts: {every}")
    rounded = next((one["rounded"] for one in found.values() if "rounded" in one), None)
    if rounded:
        lines.append(
            f"* control, the weights rounded to bfloat16 and nothing else: {_kept(rounded)}"
        )
    lines += [line for name, result in found.items() for line in _curve(name, result["facts"])]
    for name, result in found.items():
        count = f"{len(result['facts'])} of {len(FACTS)} facts run"
        undone = "each undone bit for bit" if result["undone"] else "NOT every one was undone"
        lines.append(f"* {name}: {count}, {undone}; {_origin(result)}")
    return "\n".join(lines)


def _curve(name: str, facts: Sequence[dict[str, Any]]) -> list[str]:
    """What a store would take for a fact's by threshold, over all facts; where counts change."""
    points = zip(*(one.get("threshold_curve", ()) for one in facts), strict=True)
    lines: dict[str, str] = {}
    for same in points:
        counts = " and ".join(
            f"{sum(round(one[side]['value'] * one[side]['n']) for one in same)} of "
            f"{sum(one[side]['n'] for one in same)} {word}"
            for side, word in (("wordings", "wordings"), ("others", "other prompts"))
        )
        lines.setdefault(counts, f"from probability {same[0]['threshold']:g} on {counts}")
    return [f"* {name} would take for a fact's {'; '.join(lines.values())}"] if lines else []


def _injected_row(name: str, one: dict[str, Any]) -> str:
    groups, kept = grouped(one), one["controls_unchanged"]
    said = one["answers"][0]["after"]["answer"]
    told = "yes" if one["answers"][0]["status"] == "injected" else f"no: {_code(said)}"
    counts = [
        f"{sum(groups[name])} of {len(groups[name])}" if name in groups else ""
        for name in ("reworded", "partner", "near")
    ]
    spent = (f"{one[clock]:.1f}" for clock in ("seconds", "processor_seconds"))
    return f"| {' | '.join((_code(one['fact']), name, told, *counts, _kept(kept), *spent))} |"


def _kept(one: dict[str, float]) -> str:
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def failures() -> str:
    """Wrong answers and wrong firings by example."""
    parts = []
    for result in results():
        for group, score in {**result["asked"], **result["silent"]}.items():
            examples = score["failures"][:5]
            if examples:
                lines = "\n".join(f"* {_example(example)}" for example in examples)
                parts.append(f"**{_title(result)}, {group}**\n\n{lines}\n")
    origin = "\n".join(f"* {_title(result)}: {_origin(result)}" for result in results())
    return "\n".join([*parts, "Origin of each set's numbers:", "", origin])


def _example(example: dict[str, Any]) -> str:
    asked = _code(example["asked"])
    if "said" in example:
        return f"{asked}: wanted {_code(example['wanted'])}, said {_code(example['said'])}"
    return f"{asked} was taken for {_code(str(example['taken_for']))} ({example['score']})"


def _code(text: str) -> str:
    short = text if len(text) <= 90 else f"{text[:87]}..."
    return f"`{short}`".replace("\n", " ").replace("|", "\\|")


def _origin(result: dict[str, Any]) -> str:
    came = result["provenance"]
    return (
        f"commit `{came['commit']}`, {came['date']}, {came['machine']}, torch {came['torch']}, "
        f"transformers {came['transformers']}"
        + (f", {came['host']} in {came['dtype']}" if "host" in came else "")
    )


def _place(name: str) -> int:
    return next((i for i, known in enumerate(ORDER) if name.startswith(known)), len(ORDER))


def _title(result: dict[str, Any]) -> str:
    name, _, variant = result["label"].partition("-")
    title = TITLES.get(name, name)
    return f"{title} ({variant})" if variant else title


def _share(score: dict[str, float]) -> str:
    return f"{_point(score)} ({score['low']:.3f} to {score['high']:.3f})"


def _point(score: dict[str, float]) -> str:
    # A share of one is written as 1 only if there was no exception at all.
    return "1" if score["value"] == 1 else f"{min(score['value'], 0.9999):.4f}"


def _spread(of: dict[str, float]) -> str:
    return f"{of['value']:.3g} ({of['low']:.3g} to {of['high']:.3g})"


if __name__ == "__main__":
    main()
