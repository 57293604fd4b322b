"""A picture of what the gate of a gated LoRA does, token by token.

A gated LoRA is taught facts of the demonstration; the picture has the gate behind each token of a
taught question with its answer, of the same asked otherwise, of a question for another fact, and of
one for a story, each with what the host then says.

    python -m benchmarks.gated_lora [--facts 24] [--out docs/memories/gated_lora.png]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from engram_transformers.api import load
from engram_transformers.demo.data import demo_data
from engram_transformers.evaluation.generate import common_prefix
from engram_transformers.evaluation.report.heatmap import Shaded, heatmap

PICTURE = Path(__file__).parent.parent / "docs" / "memories" / "gated_lora.png"
OTHERS = {"not taught": "What is the capital of Norway?", "a story": "Tell me a short story."}
SAID = 12
"Tokens of an answer, at most."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", type=int, default=24)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    host, known = load(), demo_data(options.facts).facts
    first, taught = known[0], [one.fact for one in known]
    asked = {"taught": first.fact.prompt, "asked otherwise": first.held_out[0], **OTHERS}
    with (
        tempfile.TemporaryDirectory() as folder,
        host.open_memory(Path(folder) / "gated", kind="gated_lora") as opened,
    ):
        print(f"{len(opened.teach(taught).taught)} of {len(taught)} facts hold")
        prompts = dict(zip(asked, host.prompts(list(asked.values()), form="chat"), strict=True))
        same = len(common_prefix(list(prompts.values())))
        shaded = []
        for name, prompt in prompts.items():
            said = host.generate([prompt], max_new_tokens=SAID)[0]
            gates = opened.memory.gates(host.tokens, [*prompt, *said])
            # What all chats begin with is left out.
            shaded.append(Shaded(name, gates.texts[same:], gates.values[same:]))
            print(f"{name}: {asked[name]} {host.tokens.decode_answer(said)}")
        heatmap(shaded, options.out, threshold=opened.memory.config.threshold)


if __name__ == "__main__":
    main()
