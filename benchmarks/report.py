"""The common parts of all benchmarks: interleaved timing, the table and the JSON file."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lime_model.digests import code_digest, source_digest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Row:
    """One measured value, with its target `reach` and its ideal `aim` as text such as ">= 17"."""

    what: str
    value: float
    unit: str
    reach: str = ""
    aim: str = ""
    holds: bool = True  # whether the value meets `reach`
    note: str = ""  # why the value misses its target


def row(what: str, value: float, unit: str, reach: str = "", aim: str = "", why: str = "") -> Row:
    """Return a row, and check its value against the target.

    Args:
        what: the name of the value.
        value: the value.
        unit: its unit, or a remark.
        reach: the target, if there is one.
        aim: the ideal, if there is one.
        why: the note of the row if the value misses its target.
    """
    holds = True
    if reach:
        sign, limit = reach.split()
        holds = value >= float(limit) if sign == ">=" else value <= float(limit)
    return Row(what, round(value, 4), unit, reach, aim, holds, "" if holds else why)


def interleave(
    runs: Mapping[str, Callable[[], object]], rounds: int = 5, *, warm: bool = True
) -> dict[str, list[float]]:
    """Time each run in each round, so that a noisy minute hits all runs.

    Args:
        runs: the runs by name.
        rounds: the number of rounds.
        warm: whether each run is first made once without timing.

    Returns:
        The seconds of each run, one value for each round.
    """
    for run in runs.values() if warm else ():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def publish(name: str, rows: list[Row], about: str, started: float) -> None:
    """Print the table and write the JSON file.

    Args:
        name: the name of the file, without its suffix.
        rows: the measured values.
        about: a sentence about sizes and data.
        started: the monotonic time at which the benchmark started.
    """
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    document = {
        "machine": machine(),
        "commit": commit.stdout.strip(),
        "about": about,
        "rows": [asdict(r) for r in rows],
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{about}\n{document['machine']}\n")
    width = max(len(r.what) for r in rows)
    for r in rows:
        mark = "" if not r.reach else ("holds" if r.holds else "DOES NOT HOLD")
        aim = f" aim {r.aim}" if r.aim else ""
        print(f"{r.what:<{width}}  {r.value:>10.4f} {r.unit:<14} {r.reach:>8}{aim}  {mark}".rstrip())
        if r.note:
            print(f"    {r.note}")
    print(f"\n{path.relative_to(ROOT)} written after {time.monotonic() - started:.0f} s")


def kept_folder(kind: str, *sources: str) -> Path:
    """Return the folder where a benchmark keeps its measurements, `.bench/kind/DIGEST`.

    The digest covers the code of training and the sources: files, or whole folders of Python, from the root.
    """
    paths = [ROOT / source for source in sources]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    folder = ROOT / ".bench" / kind / (code_digest("lime_model.train.fit") + source_digest(files))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a kept measurement, or make and keep it, so that a stopped benchmark can continue.

    Args:
        folder: the folder of the measurements.
        name: the name of the measurement.
        make: measures it.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(make()))
        partial.rename(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def machine() -> str:
    """Describe the processor, its vector extensions and the version of Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    kinds = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in flags]
    model = f"{facts.get('model name', platform.processor())} (family {facts.get('cpu family', '?')})"
    return f"{model}, {', '.join(kinds) or 'no vector extension'}, Python {platform.python_version()}"
