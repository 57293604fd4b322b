"""The other side of `benchmarks/easyedit.py`: runs in an environment with what EasyEdit needs.

Reads a task a line from stdin: a fact, a method and its setting. Edits the bare host, leaves the
changed weights in a file and puts the host's own back; what it took is the answer, a line of JSON.

EasyEdit's functions are used as they are. Its package's own `__init__` is passed by, which imports
much that an edit of text has no need of, and its download of Wikipedia, for which the given texts
stand in.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

SEED = 0
"Of the beginnings of texts that it has the host make up."
FORM = {
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj",
    "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp",
    "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm",
    "lm_head_module": "model.embed_tokens",
}
"Where a host of Llama's form, with a tied head, has what is asked for by name."

Row = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """Where EasyEdit has a method."""

    module: str
    apply: str
    hyper: str
    "Module and class of its hyper-parameters."


METHODS = {
    "ROME": Method("rome.rome_main", "apply_rome_to_model", "rome.rome_hparams:ROMEHyperParams"),
    "MEMIT": Method(
        "memit.memit_main", "apply_memit_to_model", "memit.memit_hparams:MEMITHyperParams"
    ),
    "AlphaEdit": Method(
        "alphaedit.AlphaEdit_main",
        "apply_AlphaEdit_to_model",
        "alphaedit.AlphaEdit_hparams:AlphaEditHyperParams",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="EasyEdit's files")
    parser.add_argument("--host", type=Path, required=True, help="a folder named after llama")
    parser.add_argument("--texts", type=Path, required=True, help="JSON, for the statistics")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        torch.set_num_threads(options.threads)
        editor = Editor(options.source, options.host, json.loads(options.texts.read_text()))
        for line in sys.stdin:
            print(json.dumps(editor.edited(json.loads(line))), file=answers, flush=True)


class Editor:
    """EasyEdit with one host."""

    def __init__(self, source: Path, host: Path, texts: Sequence[str]) -> None:
        self.source, self.host, self.texts = source, host, texts
        self.came = origin(source)
        _package(source)
        _reading(texts)
        # As its own `BaseEditor` loads a host whose name says llama.
        self.model = AutoModelForCausalLM.from_pretrained(host, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(host)
        self.tokenizer.pad_token_id = self.tokenizer.eos_token_id
        self.tokenizer.padding_side = "right"
        self.ready: dict[str, Any] = {}
        "By method, the hyper-parameters for which everything is at hand."

    def edited(self, task: Row) -> Row:
        """Edit the bare host; what it took, nothing counted that later edits need not do again."""
        method = METHODS[task["method"]]
        module = import_module(f"easyeditor.models.{method.module}")
        hyper = self.hyper(task["method"], task["setting"])
        if self.ready.get(task["method"]) != hyper:
            self._prepare(task["method"], module, hyper)
            self.ready[task["method"]] = hyper
        fact = task["fact"]
        request = {
            "prompt": fact["prompt"],
            "subject": fact["subject"],
            "target_new": fact["answer"],
            "case_id": 0,
        }
        # Only AlphaEdit knows it: forget the keys of the edits before.
        only = {"reset_cache": True} if task["method"] == "AlphaEdit" else {}
        torch.manual_seed(SEED)
        wall, processor = time.perf_counter(), time.process_time()
        _, own = getattr(module, method.apply)(
            self.model, self.tokenizer, [request], hyper, return_orig_weights=True, **only
        )
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        self._hand_over(own, Path(task["to"]))
        used = {name: value for name, value in vars(hyper).items() if name not in _OF_THE_MACHINE}
        return {"wall": wall, "processor": processor, "hyper": used, "origin": self.came}

    @torch.no_grad()
    def _hand_over(self, own: Mapping[str, Any], to: Path) -> None:
        """The changed weights go into a file, the host's own back into the host."""
        weights = {name: self.model.get_parameter(name) for name in own}
        save_file({name: weight.detach().clone() for name, weight in weights.items()}, to)
        for name, weight in weights.items():
            weight.copy_(own[name])

    def hyper(self, method: str, setting: Row) -> Any:
        """Its hyper-parameters for another host, at the same share of this one's depth."""
        path = self.source / "hparams" / method / f"{setting['of']}.yaml"
        given = {name: _number(value) for name, value in yaml.safe_load(path.read_text()).items()}
        depth = len(self.model.model.layers)
        own = {
            "layers": at_depth(given["layers"], given["v_loss_layer"] + 1, depth),
            "v_loss_layer": depth - 1,
            "device": "cpu",
            "model_name": str(self.host),
            "stats_dir": str(self.host.parent / "statistics"),
            "mom2_n_samples": len(self.texts),
            "fp16": False,
        }
        if method == "AlphaEdit":
            own["P_loc"] = str(self.host.parent / "projections.pt")
        if method != "ROME":
            own.pop("fp16")
            given.pop("fp16", None)
        place, name = METHODS[method].hyper.split(":")
        kind = getattr(import_module(f"easyeditor.models.{place}"), name)
        return kind(**{**given, **own, **FORM, **setting["changes"]})

    def _prepare(self, method: str, module: ModuleType, hyper: Any) -> None:
        """What it computes once for a host: statistics, projections, beginnings of texts."""
        torch.manual_seed(SEED)
        host = (self.model, self.tokenizer)
        if method == "ROME":
            module.get_context_templates(*host, hyper.context_template_length_params)
            if hyper.mom2_adjustment:
                given = (hyper.mom2_dataset, hyper.mom2_n_samples, hyper.mom2_dtype)
                inverse = import_module("easyeditor.models.rome.compute_u").get_inv_cov
                for layer in hyper.layers:
                    inverse(*host, hyper.rewrite_module_tmp.format(layer), *given, hparams=hyper)
            return
        module.get_context_templates(*host)
        if method == "AlphaEdit":
            found = [module.get_project(*host, layer, hyper) for layer in hyper.layers]
            torch.save(torch.stack(found), hyper.P_loc)
            module.P_loaded = False
            return
        for layer in hyper.layers:
            given = (hyper.mom2_dataset, hyper.mom2_n_samples, hyper.mom2_dtype)
            module.get_cov(*host, hyper.rewrite_module_tmp.format(layer), *given, hparams=hyper)


_OF_THE_MACHINE = ("device", "model_name", "stats_dir", "P_loc", *FORM)


def at_depth(layers: Sequence[int], theirs: int, ours: int) -> list[int]:
    """As many layers in a row, of which the last lies at the same share of the depth."""
    last = min(ours - 1, round(max(layers) / theirs * ours))
    return list(range(last - len(layers) + 1, last + 1))


def _number(value: Any) -> Any:
    # YAML takes `5e-1` for a word.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _package(source: Path) -> None:
    """The package `easyeditor` without what its `__init__` files do."""
    for name in ("easyeditor", "easyeditor.models"):
        module = ModuleType(name)
        module.__path__ = [str(source.joinpath(*name.split(".")))]
        sys.modules[name] = module


def _reading(texts: Sequence[str]) -> None:
    """Have its statistics read these texts."""
    statistics: Any = import_module("easyeditor.models.rome.layer_stats")
    statistics.load_dataset = lambda *_: {"train": [{"text": text} for text in texts]}


def origin(source: Path) -> Row:
    """What ran."""
    found = {name: version(name) for name in ("torch", "transformers")}
    told = ["git", "-C", str(source), "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(told, capture_output=True, text=True, check=False).stdout.strip()
    return {"easyedit": commit or None, **found, "python": platform.python_version()}


if __name__ == "__main__":
    main()
