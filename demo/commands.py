"""Run the commands of the demo, also side by side, and print what they do while they work.

A command writes into a log of its own. Our jobs log their progress every ten seconds, and `lime` says what it
does and what it has done. The newest such line of each log is what the demo prints.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECONDS = 0.5
QUIET_SECONDS = 10.0  # the longest silence of the demo, if a command works longer
TAIL = 6000  # bytes of the log that are shown after a failure
# A line of the command `lime`: what a step does, or that it is done.
LIVE = re.compile(r"\w[\w -]*, [\d,]+ s(: .+|; .+)?|\d+/\d+ \w+ (is done|was done before).+")
EVENT = '{"event": "'  # the start of a line of our jobs' log, which Airflow puts inside a line of its own


@dataclass
class Command:
    """A command that runs; it is printed when it starts.

    Args:
        name: its name in the demo's output.
        words: the command line.
        root: the folder in which it runs.
        log: the file of its output.
        env: its environment.
    """

    name: str
    words: Sequence[str]
    root: Path
    log: Path
    env: Mapping[str, str]
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    def __post_init__(self) -> None:
        print(f"$ {' '.join(self.words)}", flush=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                self.words, cwd=self.root, env=self.env, stdout=sink, stderr=subprocess.STDOUT
            )

    def poll(self) -> bool:
        """Whether the command has ended.

        Raises:
            SystemExit: it failed; the message shows the end of its output.
        """
        code = self.process.poll()
        if code is None or self.ended:
            return code is not None
        self.ended = time.monotonic()
        if code:
            tail = self.log.read_bytes()[-TAIL:].decode(errors="replace")
            sys.exit(f"{tail}\n{self.name} ended with {code}; the whole output is in {self.log}")
        print(f"  {self.seconds:.0f} s: {self.name} is done", flush=True)
        return True

    @property
    def seconds(self) -> float:
        """The seconds that it has run."""
        return (self.ended or time.monotonic()) - self.started

    def describe(self) -> str:
        """Say what the command does now."""
        said = find_progress(self.log)
        return f"  {self.seconds:.0f} s, {self.name}" + (f": {said}" if said else "")

    def stop(self) -> None:
        """End the command, which leaves what it has committed."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def finish(awaited: Iterable[Command], meanwhile: Iterable[Command] = ()) -> None:
    """Wait for some commands, and print what they and others do meanwhile.

    Args:
        awaited: the commands that must end.
        meanwhile: commands that run at the same time and may go on.

    Raises:
        SystemExit: one of them failed; the others were stopped.
    """
    waiting, others = list(awaited), list(meanwhile)
    printed = time.monotonic()
    try:
        while waiting:
            time.sleep(LOOK_SECONDS)
            before = len(waiting) + len(others)
            waiting = [each for each in waiting if not each.poll()]
            others = [each for each in others if not each.poll()]
            if len(waiting) + len(others) < before:
                printed = time.monotonic()
            elif time.monotonic() - printed >= QUIET_SECONDS:
                printed = time.monotonic()
                print("\n".join(each.describe() for each in (*waiting, *others)), flush=True)
    except BaseException:
        for each in (*waiting, *others):
            each.stop()
        raise


def find_progress(log: Path) -> str:
    """Return what the last line of a job in a log says; empty if there is none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        if EVENT in line:
            try:
                return str(json.JSONDecoder().raw_decode(line, line.index(EVENT))[0]["event"])
            except ValueError:  # the process is about to write the rest of the line
                continue
        elif LIVE.fullmatch(line):
            return line
    return ""
