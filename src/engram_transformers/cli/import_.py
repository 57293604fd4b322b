"""Teach the facts of an export, or of any file of facts."""

from __future__ import annotations

import argparse

from engram_transformers.cli import teach
from engram_transformers.cli.parser import Parser


def configure(parser: Parser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="facts; - is standard input")
    teach.configure_common(parser)


def run(args: argparse.Namespace) -> int:
    return teach.run(args)
