"""Talk to the model, with the memory attached.

What begins with / is for this program: /help lists it. Lines are also read from a pipe.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from engram_transformers.cli.opening import host_of, memory_path
from engram_transformers.cli.output import complain, emit, is_terminal, plural, say
from engram_transformers.cli.parser import Parser, add_memory, add_model, positive
from engram_transformers.errors import BadInput, EngramError

if TYPE_CHECKING:
    from engram_transformers.api import Host, OpenMemory

_HELP = """/explain                          say after each answer which fact fired, or stop that
/bare                             switch the memory off, or on again
/teach "question" => "answer"     teach a fact
/forget ID                        forget a fact
/undo                             take back the last write
/new                              begin a new talk
/quit                             leave"""


def configure(parser: Parser) -> None:
    parser.add_argument("--explain", action="store_true", help="say which fact fired")
    parser.add_argument(
        "--max-new-tokens", type=positive, default=256, metavar="N", help="default: 256"
    )
    add_model(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    path = memory_path(args)
    host = host_of(args, memory=path)
    with host.open_memory(path) as memory:
        talk = Talk(host, memory, explain=args.explain, longest=args.max_new_tokens, json=args.json)
        if sys.stdin.isatty() and not args.json:
            say(f"{plural(len(memory), 'fact')} in {path}; /help lists the commands, /quit leaves")
        for line in _lines():
            if not talk.take(line):
                break
    if args.json:
        emit({"turns": talk.turns, "failed": talk.failed})
    return 1 if talk.failed else 0


class Talk:
    """One conversation: turns so far, and what is switched on."""

    def __init__(
        self, host: Host, memory: OpenMemory, *, explain: bool, longest: int, json: bool
    ) -> None:
        self.host, self.memory, self.longest, self.json = host, memory, longest, json
        self.explain, self.bare = explain, False
        self.messages: list[tuple[str, str]] = []
        self.turns: list[dict[str, object]] = []
        self.failed = 0
        self.commands: dict[str, Callable[[str], None]] = {
            "/help": lambda rest: self._say(_HELP),
            "/explain": self._explain,
            "/bare": self._bare,
            "/teach": self._teach,
            "/forget": self._forget,
            "/undo": self._undo,
            "/new": self._new,
        }

    def take(self, line: str) -> bool:
        """Deal with one line; False when it says to leave."""
        line = line.strip()
        if line in ("/quit", "/exit"):
            return False
        try:
            if line.startswith("/"):
                self._command(*line.partition(" ")[::2])
            elif line:
                self._answer(line)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            # Ctrl-C stops an answer; at the prompt it ends the talk.
            print()
            del self.messages[len(self.messages) // 2 * 2 :]
        except EngramError as error:
            # The talk goes on; whoever pipes lines in learns of it from the exit status.
            self.failed += 1
            complain(str(error))
        return True

    def _command(self, name: str, rest: str) -> None:
        if name not in self.commands:
            raise BadInput(f"no command is called {name!r}; /help lists them")
        self.commands[name](rest.strip())

    def _answer(self, question: str) -> None:
        self.messages.append(("user", question))
        ids = self._fitting()
        with self.host.bare() if self.bare else nullcontext():
            answer = self._generated(ids)
        self.messages.append(("assistant", answer))
        firing = None if self.bare else self.memory.explain(question)
        self.turns.append({"question": question, "answer": answer, "fact": firing and firing.fact})
        if firing and self.explain:
            self._say(self._reason(firing))

    def _generated(self, ids: list[int]) -> str:
        from engram_transformers.cli.streaming import Stream

        stream = Stream(self.host.tokens) if is_terminal() and not self.json else None
        [written] = self.host.generate([ids], max_new_tokens=self.longest, streamer=stream)
        answer = self.host.tokens.decode_answer(written)
        if not stream:
            self._say(answer)
        return answer

    def _fitting(self) -> list[int]:
        """Ids of the talk; its oldest turns go where the host could not read it all."""
        room = self.host.adapter.max_length()
        while True:
            ids = self.host.talk(self.messages)
            if room is None or len(ids) + self.longest <= room or len(self.messages) < 3:
                return ids
            del self.messages[:2]

    def _reason(self, firing: object) -> str:
        from engram_transformers.cli.words import explanation
        from engram_transformers.types import Firing

        assert isinstance(firing, Firing)
        fact = self.memory.get(firing.fact).fact if firing.fact else None
        return explanation(firing, fact)

    def _say(self, text: str) -> None:
        if not self.json:
            say(text)
            sys.stdout.flush()

    # -- commands --------------------------------------------------------------------------

    def _explain(self, rest: str) -> None:
        self.explain = not self.explain
        self._say(f"explanations are {'on' if self.explain else 'off'}")

    def _bare(self, rest: str) -> None:
        self.bare = not self.bare
        self._say(f"the memory is {'off' if self.bare else 'on'}")

    def _teach(self, rest: str) -> None:
        from engram_transformers.types import Fact

        prompt, arrow, answer = (part.strip().strip('"').strip() for part in rest.partition("=>"))
        if not (prompt and arrow and answer):
            raise BadInput('write it as /teach "question" => "answer"')
        receipt = self.memory.teach([Fact(prompt, answer)], source="chat")
        for refusal in receipt.refused:
            raise BadInput(f"not taught: {refusal.reason}")
        replaced = f", in place of {receipt.replaced[0].old}" if receipt.replaced else ""
        self._say(f"taught {receipt.taught[0]}{replaced}" if receipt.taught else "known already")

    def _forget(self, rest: str) -> None:
        gone = self.memory.forget(rest.split())
        if not gone:
            raise BadInput("write it as /forget ID; /explain shows ids")
        self._say(f"forgot {', '.join(fact.id for fact in gone)}")

    def _undo(self, rest: str) -> None:
        receipt = self.memory.undo()
        counts = f"{len(receipt.taught)} restored, {len(receipt.forgotten)} removed"
        self._say(f"undone: {counts}")

    def _new(self, rest: str) -> None:
        self.messages.clear()
        self._say("a new talk")


def _lines() -> Iterator[str]:
    """Lines typed at a prompt, or those of a pipe."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    _edit_lines()
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


def _edit_lines() -> None:
    with suppress(ImportError):
        import readline  # noqa: F401 - importing it gives input() editing and history
