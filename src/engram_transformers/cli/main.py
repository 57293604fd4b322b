"""The command line: finds the command, runs it, and turns errors into one line and a status.

Commands live one to a file, which is imported when the command is called: `engram --help` must
not pay for torch. A command's module has two functions, `configure(parser)` and `run(args)`,
and imports what is heavy inside them.
"""

from __future__ import annotations

import difflib
import keyword
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from engram_transformers import __version__
from engram_transformers.cli import output
from engram_transformers.cli.parser import Parser
from engram_transformers.errors import (
    BadInput,
    EngramError,
    StoreError,
    TrainingDiverged,
    UnsupportedCall,
)

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

COMMANDS = {
    "demo": "teach a real model 167 facts, prove it, take them back",
    "teach": "teach facts from files or from the command line",
    "ask": "ask one question",
    "chat": "talk, with the memory attached",
    "list": "list the facts of a memory",
    "show": "show one fact and its history",
    "forget": "forget facts; the model then computes as if never taught",
    "undo": "take back a write",
    "verify": "ask the model for every fact again",
    "export": "write the facts to a file",
    "import": "teach the facts of an export",
    "stats": "counts and sizes of a memory",
    "train": "train a memory on files of facts, with checkpoints and a card",
    "gate": "train the gate of a learned route, and score it",
    "eval": "teach a memory a task's facts and measure it",
    "compare": "run many experiments and keep their results",
    "study": "answer a question by many measurements, with tables, plots and a page",
    "report": "write a page of tables and plots from stored results",
    "introspect memory": "how a model keeps facts: neighbourhoods of states, and what it recalls",
    "introspect memory-inject": "inject a fact, see what it changes, and take it out again",
    "introspect commutativity": "whether A*B and B*A are one state or two",
    "introspect patch": "put one prompt's states into another, layer by layer",
    "introspect arithmetic": "at which layer results of sums and products appear",
    "introspect trace": "where a fact is recalled: causal tracing over layers and tokens",
    "models": "models that are on this machine",
}
FAMILIES = {"introspect": "look inside a model"}
"First words of commands of two words."
_EXAMPLES = """examples:
  engram demo
  engram teach facts.jsonl -M my-facts
  engram ask "Which port is billing on?" -M my-facts --explain
  engram COMMAND --help"""


def run() -> NoReturn:
    """Entry point of the programs `engram` and `lazarus`."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    output.prepare()
    try:
        status = _dispatch(list(argv))
        sys.stdout.flush()
        return status
    except (EngramError, OSError, MemoryError) as error:
        return _failed(error)
    except KeyboardInterrupt as stop:
        return _interrupted(stop)


def command(name: str) -> ModuleType:
    """The module of a command."""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "engram --help lists the commands"
        raise BadInput(f"no command is called {name!r}; {hint}")
    module = name.replace(" ", "_").replace("-", "_") + "_" * keyword.iskeyword(name)
    return import_module(f"engram_transformers.cli.{module}")


def parser_of(name: str) -> Parser:
    """The parser of one command."""
    module = command(name)
    parser = Parser(f"engram {name}", description=(module.__doc__ or "").strip())
    module.configure(parser)
    return parser


def overview() -> str:
    """What `engram --help` prints."""
    lines = [f"  {name:<26}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: engram COMMAND [OPTIONS]\n",
            "Teach a language model facts, prove that it learned them, and take them back.\n",
            "commands:",
            *lines,
            f"\n{_EXAMPLES}",
        ]
    )


def family(first: str) -> str:
    """What `engram introspect` prints: the commands that begin with this word."""
    found = {name: text for name, text in COMMANDS.items() if name.split()[0] == first}
    lines = [f"  {name:<26}{summary}" for name, summary in found.items()]
    usage = f"usage: engram {first} WHAT [OPTIONS]"
    return "\n".join([f"{usage}\n", f"{FAMILIES[first].capitalize()}.\n", *lines])


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return OK
    if argv[0] in ("-V", "--version"):
        print(f"engram {__version__}")
        return OK
    if argv[0] in FAMILIES:
        if len(argv) == 1 or argv[1] in ("-h", "--help", "help"):
            print(family(argv[0]))
            return OK
        argv = [" ".join(argv[:2]), *argv[2:]]
    parser = parser_of(argv[0])
    if {"-h", "--help"} & set(_before_dashes(argv[1:])):
        print(parser.format_help(), end="")
        return OK
    status: int = command(argv[0]).run(parser.read(argv[1:]))
    return status


def _before_dashes(argv: list[str]) -> list[str]:
    return argv[: argv.index("--")] if "--" in argv else argv


def _failed(error: Exception) -> int:
    if os.environ.get("ENGRAM_DEBUG"):
        traceback.print_exc()
    if isinstance(error, BrokenPipeError):
        # Whoever reads has seen enough. Closing stdout later must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    output.complain(_line(error))
    work = isinstance(error, StoreError | UnsupportedCall | TrainingDiverged)
    return FAILED if work or not isinstance(error, EngramError) else BAD_INPUT


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, EngramError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if isinstance(error, MemoryError):
        return "this machine has not enough memory for that; use a smaller model or fewer facts"
    return str(error) or type(error).__name__


def _interrupted(stop: KeyboardInterrupt) -> int:
    if os.environ.get("ENGRAM_DEBUG"):
        traceback.print_exc()
    receipt = getattr(stop, "receipt", None)
    if receipt is None:
        output.complain("interrupted; nothing was changed")
    else:
        stored = output.plural(len(receipt.taught), "fact")
        output.complain(f"interrupted; {stored} stored, run the same command again to go on")
    return INTERRUPTED
