"""Files are unpacked once on each host, and a damaged chunk is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.score import broadcast_files
from pipelines.score.broadcast_files import (
    BroadcastError,
    BroadcastFiles,
    BroadcastSender,
    Chunk,
    unpack_once,
)

TEXT = {"one": os.urandom(5_000), "two": b"", "three": os.urandom(1_500)}


@pytest.fixture
def sent(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BroadcastFiles:
    """Send two files of several chunks, to be unpacked under `tmp_path`."""
    monkeypatch.setattr(broadcast_files, "CHUNK_BYTES", 1_000)
    sender = BroadcastSender(spark.sparkContext)
    for file, data in TEXT.items():
        sender.add(file, data)
    return replace(sender.finish(), root=str(tmp_path))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_worker_unpacks_the_files_and_all_read_them(spark: SparkSession, sent: BroadcastFiles) -> None:
    def work(_: int) -> tuple[int, int, dict[str, bytes]]:
        folder = unpack_once(sent)
        return os.getpid(), (folder / "one").stat().st_ino, contents(folder)

    found = spark.sparkContext.parallelize(range(8), 8).map(work).collect()
    assert len({pid for pid, _, _ in found}) > 1
    assert len({inode for _, inode, _ in found}) == 1
    assert all(files == {name: data for name, data in TEXT.items() if data} for _, _, files in found)


@pytest.mark.parametrize("at", [0, 40, 900])
def test_a_flipped_byte_in_a_chunk_is_refused(sent: BroadcastFiles, tmp_path: Path, at: int) -> None:
    chunk = Path(sent.chunks[2].broadcast._path)  # the file that a worker would read
    raw = bytearray(chunk.read_bytes())
    raw[at] ^= 4
    chunk.write_bytes(raw)
    with pytest.raises(BroadcastError, match=r"a chunk of one reached .* damaged"):
        unpack_once(sent)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]  # no file is left


def test_the_error_of_a_full_disk_names_the_folder(sent: BroadcastFiles, tmp_path: Path) -> None:
    huge = replace(sent, size=1 << 60)
    with pytest.raises(BroadcastError, match=rf"no room for 1,152,.* under {tmp_path}, .* spark.local.dir"):
        unpack_once(huge)


def test_files_of_a_worker_that_was_killed_while_unpacking_are_not_used(
    sent: BroadcastFiles, tmp_path: Path
) -> None:
    torn = tmp_path / f"{sent.name}.torn-of-the-dead"
    torn.mkdir()
    (torn / "one").write_bytes(b"half")
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
            "print(flush=True); time.sleep(60)",
            str(tmp_path / f"{sent.name}.lock"),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    assert contents(unpack_once(sent))["one"] == TEXT["one"]
    assert time.monotonic() - started < 5
    assert not torn.exists()


def test_a_worker_that_has_unpacked_keeps_no_chunk_in_memory(sent: BroadcastFiles) -> None:
    unpack_once(sent)
    assert not [chunk for chunk in sent.chunks if "_value" in vars(chunk.broadcast)]
    assert isinstance(sent.chunks[0], Chunk)
