"""The tables of the MEMOIR memory's page: edits one by one, what is found, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {
    "tf_rel": "forced, taught",
    "tf_gen": "forced, rephrased",
    "gen_rel": "exact, taught",
    "gen_gen": "exact, rephrased",
    "gen_stop": "ends by itself",
    "loc_bitexact": "unrelated, bit-equal",
    "hard_bitexact": "near misses, bit-equal",
    "retention": "kept",
    "cpu_seconds_per_fact": "processor s an edit",
    "bytes_per_fact": "bytes a fact",
}
CURVE = ("tf_rel", "tf_gen", "gen_rel", "gen_gen", "cpu_seconds_per_fact")
WAYS = {
    "meaning": "mask, words and encoder",
    "words": "mask and words",
    "mask": "mask alone",
}


def edits(found: Sequence[Mapping[str, Any]]) -> str:
    """Edits that were taught one at a time, then all asked for; and how it went on the way."""
    if not found:
        return "not measured yet"
    lines = [_head("set / variant", "edits stored", *COLUMNS.values())]
    for one in found:
        cells = [_cell(name, one.get(name)) for name in COLUMNS]
        lines.append(_row(_name(one), f"{one.get('taught', 0)} of {one['n']}", *cells))
    lines += ["", *(f"* {_counted(one)}" for one in found)]
    curves = [one for one in found if one.get("curve")]
    if curves:
        heads = [COLUMNS[name] for name in CURVE]
        lines += ["", _head("set / variant", "after edits", *heads)]
    for one in curves:
        lines += [
            _row(_name(one), f"{point['T']:,}", *(_cell(name, point.get(name)) for name in CURVE))
            for point in one["curve"]
        ]
    return "\n".join(lines)


def masks(found: Mapping[str, Any]) -> str:
    """How many rewordings find their edit, and what others do, by each way to match."""
    lines = [
        _head(
            "set", "subjects", "matched by", "rewordings right", "wrong edit", "unrelated fired",
            "near misses fired",
        )
    ]  # fmt: skip
    for one in found["rows"]:
        lines.append(
            _row(
                f"{one['set']}, {one['facts']} facts",
                "given" if one["subjects"] else "none",
                WAYS[one["match"]],
                *(_share(one.get(name)) for name in ("right", "wrong", "unrelated", "near")),
            )
        )
    ranks = [name for name in found["rows"][0] if name == "first" or name.startswith("among_")]
    heads = ["nearest" if name == "first" else f"among {name[6:]}" for name in ranks]
    lines += ["", _head("set: the right mask is", *heads)]
    # The same for all ways to match, since masks do not know of them.
    by_set = {one["set"]: one for one in found["rows"]}
    lines += [_row(name, *(_share(one[rank]) for rank in ranks)) for name, one in by_set.items()]
    return "\n".join(lines)


def capacity(found: Mapping[str, Any]) -> str:
    """What matrices keep of some edits, beside values that are told by counting."""
    heads = [f"{name}, {which}" for name in found["sets"] for which in ("taught", "reworded")]
    lines = [_head("exact to the end", *heads)]
    for rows in zip(*found["sets"].values(), strict=True):
        cells = [_share(row[which]) for row in rows for which in ("taught", "reworded")]
        lines.append(_row(rows[0]["memory"], *cells))
    return "\n".join(lines)


def search(found: Mapping[str, Any]) -> str:
    """Milliseconds and bytes of fingerprints, searches and the residual layer."""
    shapes, masks = found["shapes"], f"{found['masks']:,}"
    heads = [f"{one['features']:,} features, {one['active']} active" for one in shapes.values()]
    lines = [_head("processor ms, median (quartiles)", *heads)]
    for name, told in {
        "fingerprint": "one fingerprint",
        "plain": f"search in {masks} masks, plain",
        "faiss": f"search in {masks} masks, faiss",
        "layer": "residual layer, one token",
    }.items():
        lines.append(_row(told, *(_spread(one["milliseconds"][name]) for one in shapes.values())))
    bytes_told = {"matrix": "bytes of the residual matrix", "edit": "bytes of an edit beside it"}
    each = [f"{one['bytes_per_mask']}" for one in shapes.values()]
    lines.append(_row("bytes of a mask", *each))
    for name, told in bytes_told.items():
        lines.append(_row(told, *(f"{one['bytes'][name]:,}" for one in shapes.values())))
    lines += ["", _head(f"retrieval of the kind among {masks} questions", "processor ms")]
    told = {**WAYS, "encoding": "of that, the encoder reading the question"}
    lines += [_row(told[name], _spread(one)) for name, one in found["retrieval"].items()]
    return "\n".join(lines)


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['task']} / {one['variant']}"


def _counted(one: Mapping[str, Any]) -> str:
    asked = {"taught": "gen_rel", "rephrased": "gen_gen", "unrelated": "loc_bitexact"}
    asked |= {"near misses": "hard_bitexact"}
    counts = [f"{one[name]['n']} {told}" for told, name in asked.items() if one.get(name)]
    return f"{_name(one)}: {', '.join(counts)} asked"


def _cell(name: str, score: Mapping[str, float] | None) -> str:
    if score is None:
        return ""
    if name == "bytes_per_fact":
        return f"{score['value']:,.0f}"
    return f"{score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f})"


def _share(score: Mapping[str, float] | None) -> str:
    if score is None:
        return ""
    counted = f", n = {score['n']}" if "n" in score else ""
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}){counted}"


def _spread(of: Mapping[str, float]) -> str:
    return f"{of['value']:.2f} ({of['low']:.2f} to {of['high']:.2f})"


def _head(*cells: str) -> str:
    return f"{_row(*cells)}\n{'|---' * len(cells)}|"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
