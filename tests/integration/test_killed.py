"""A writer that is killed at any moment loses nothing that it acknowledged, and halves nothing.

One child imports torch and then forks the writers, since fifty imports would take minutes.
"""

import os
import random
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from engram_transformers.stores import Directory
from engram_transformers.types import Fact, HostIdentity

KILLS = 60
FACTS = 15
"Facts of one write."
KEPT = 6
"A write removes what the write this many before it stored."

Batch = list[tuple[Fact, dict[str, torch.Tensor]]]


def batch(write: int) -> Batch:
    """What a write stores: nothing but its number decides."""
    noise = np.random.default_rng(write)
    return [
        (
            Fact(f"prompt {number} of {write}", f"answer {number}", [f"rephrased {number}"]),
            {
                "keys": torch.from_numpy(noise.integers(0, 9999, 24, dtype=np.int32)),
                "payload": torch.from_numpy(noise.standard_normal(64).astype(np.float16)),
            },
        )
        for number in range(FACTS)
    ]


def ids(write: int) -> list[str]:
    return [fact.id for fact, _ in batch(write)] if write > 0 else []


def write_forever(path: Path) -> NoReturn:
    """Acknowledge every write by its number on standard output."""
    store = Directory.open(path, writable=True)
    for number in count(store.stats().writes + 1):
        done = store.commit("teach", add=batch(number), remove=ids(number - KEPT))
        os.write(1, b"%d\n" % done)
        store.snapshot()
    raise AssertionError


def serve(path: Path) -> None:
    """For every line read, fork a writer, tell its process id, and tell when it is dead."""
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            write_forever(path)
        os.write(1, b"pid %d\n" % child)
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


def kill_one(server: subprocess.Popen[str], *, after: float, path: Path) -> int:
    """Start a writer, kill it, and return the last number that it acknowledged, or 0."""
    assert server.stdin is not None
    assert server.stdout is not None
    print("go", file=server.stdin, flush=True)
    lines = iter(server.stdout.readline, "dead\n")
    acknowledged = [0]
    for line in lines:
        if line.startswith("pid"):
            time.sleep(after / 2)
            read_meanwhile(path)
            time.sleep(after / 2)
            os.kill(int(line.split()[1]), signal.SIGKILL)
        else:
            acknowledged.append(int(line))
    return max(acknowledged)


def read_meanwhile(path: Path) -> None:
    with Directory.open(path) as reader:
        assert len(reader.facts()) in {0, *(FACTS * kept for kept in range(1, KEPT + 1))}


def check(path: Path, *, acknowledged: int) -> int:
    """Everything acknowledged is there, every write whole; returns the last write's number."""
    with Directory.open(path, writable=True) as store:
        writes = store.writes()
        last = len(writes)
        assert acknowledged <= last <= acknowledged + 1
        assert [write.number for write in writes] == list(range(1, last + 1))
        assert all(list(write.added) == ids(write.number) for write in writes[-20:])
        check_facts(store, last)
        store.snapshot()
    return last


def check_facts(store: Directory, last: int) -> None:
    expected = [each for write in range(max(1, last - KEPT + 1), last + 1) for each in batch(write)]
    for stored, (fact, delta) in zip(store.facts(), expected, strict=True):
        assert stored.fact == fact
        assert delta.keys() == stored.delta.keys()
        assert all(torch.equal(delta[name], stored.delta[name]) for name in delta)


def test_nothing_acknowledged_is_lost_and_nothing_is_half_written(tmp_path: Path) -> None:
    path, chance = tmp_path / "acme", random.Random(0)
    Directory.create(path, kind="lookup", config={}, host=HostIdentity("h", "f")).close()
    command = [sys.executable, __file__, str(path)]
    last = journals = temporaries = 0
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        for _ in range(KILLS):
            acknowledged = kill_one(server, after=chance.uniform(0, 0.3), path=path)
            journals += (path / "ledger.sqlite-journal").exists()
            temporaries += (path / ".memory.safetensors.new").exists()
            last = check(path, acknowledged=max(last, acknowledged))
        assert server.stdin is not None
        server.stdin.close()
    print(f"{last} writes; killed in {journals} commits and {temporaries} snapshots")
    (path / "memory.safetensors").unlink()
    with Directory.open(path) as store:
        check_facts(store, last)
        assert all(list(write.added) == ids(write.number) for write in store.writes())


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
