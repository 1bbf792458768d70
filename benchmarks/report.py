"""What every benchmark shares: interleaved timing, the table, the JSON file."""

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
    """One measured value; `reach` and `aim` as text like ">= 17", `holds` computed from value and reach."""

    what: str
    value: float
    unit: str
    reach: str = ""
    aim: str = ""
    holds: bool = True
    note: str = ""  # why a row does not hold


def row(what: str, value: float, unit: str, reach: str = "", aim: str = "", why: str = "") -> Row:
    """A row whose `holds` follows from `reach`; `why` is said when it does not."""
    holds = True
    if reach:
        sign, limit = reach.split()
        holds = value >= float(limit) if sign == ">=" else value <= float(limit)
    return Row(what, round(value, 4), unit, reach, aim, holds, "" if holds else why)


def interleave(
    runs: Mapping[str, Callable[[], object]], rounds: int = 5, *, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each run, round by round, so that a noisy minute hits all; `warm`: after one run each."""
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
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def publish(name: str, rows: list[Row], about: str, started: float) -> None:
    """Print the table and write the JSON."""
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
    """Where a benchmark keeps what it has measured: under `.bench/kind`, by the code of training and of its
    sources (files, or whole folders of Python, from the root)."""
    paths = [ROOT / source for source in sources]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    folder = ROOT / ".bench" / kind / (code_digest("lime_model.train.fit") + source_digest(files))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` finds, or found before under this name: a stopped benchmark goes on."""
    path = folder / f"{name}.json"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(make()))
        partial.rename(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def machine() -> str:
    """Processor, cores used and what it can do."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    kinds = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in flags]
    model = f"{facts.get('model name', platform.processor())} (family {facts.get('cpu family', '?')})"
    return f"{model}, {', '.join(kinds) or 'no vector extension'}, Python {platform.python_version()}"
