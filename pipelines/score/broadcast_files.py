"""Files that all Python workers of a host map: sent as broadcast chunks, landed once per host.

Spark's broadcast carries chunks far below its limits from executor to executor, and leaves each in
a file that a worker reads only when it asks for the value. So the first worker that needs a parcel
unpacks it, chunk by chunk, into a folder that the host's workers share; the others find it there
and map the same pages.

The folder lies under Spark's local directory of the application, beside the block manager's:
standalone workers and YARN's node managers share that among the application's executors on the host
and remove it when the application ends. With a local master it is the driver's scratch folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pyspark import SparkContext
from pyspark.core.broadcast import Broadcast

from lime_model.errors import LimeError
from pipelines.models.bundles import scratch_folder

CHUNK = 16 << 20  # bytes of a broadcast: what a landing worker holds at once


class BroadcastError(LimeError):
    """A parcel that did not arrive whole, or found no room."""

    remedy = "retry"


class Chunk(NamedTuple):
    """A piece of a file, in order."""

    file: str
    sha256: str
    chunk: Broadcast[bytes]


@dataclass(frozen=True)
class BroadcastFiles:
    """Files on their way: `name` is that of the folder they unpack_once in, under `root` or Spark's own."""

    name: str
    size: int
    parts: tuple[Chunk, ...]
    root: str | None = None

    def destroy(self) -> None:
        """Free the chunks everywhere; what has landed stays."""
        for part in self.parts:
            part.chunk.destroy()


@dataclass
class BroadcastSender:
    """Takes the bytes of files and hands out the parcel; made on the driver."""

    context: SparkContext
    parts: list[Chunk] = field(default_factory=list)
    size: int = 0

    def add(self, file: str, data: bytes) -> None:
        """Append to a file of the parcel."""
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            self.parts.append(Chunk(file, hashlib.sha256(piece).hexdigest(), self.context.broadcast(piece)))
        self.size += len(data)

    def parcel(self) -> BroadcastFiles:
        """Everything added, as one folder."""
        digest = hashlib.sha256("".join(part.file + part.sha256 for part in self.parts).encode())
        name = f"lime-{self.context.applicationId}-{digest.hexdigest()[:16]}"
        local = str(self.context.master).split("[")[0] == "local"
        return BroadcastFiles(name, self.size, tuple(self.parts), scratch_folder() if local else None)


def unpack_once(parcel: BroadcastFiles) -> Path:
    """The folder with the parcel's files on this host; the first worker to come unpacks it.

    Raises:
        BroadcastError: a chunk is not what was sent, or there is no room on the disk.
    """
    root = Path(parcel.root or local_root())
    target = root / parcel.name
    try:
        with (root / f"{parcel.name}.lock").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)  # the kernel lets go of it when the worker dies
            if not target.exists():
                for torn in root.glob(f"{parcel.name}.torn-*"):  # of workers that died here
                    shutil.rmtree(torn, ignore_errors=True)
                _unpack(parcel, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BroadcastError(_no_room(parcel, root)) from error
        raise BroadcastError(f"the bank cannot unpack_once under {root}: {error}") from error
    return target


def _unpack(parcel: BroadcastFiles, target: Path) -> None:
    if shutil.disk_usage(target.parent).free < parcel.size:
        raise BroadcastError(_no_room(parcel, target.parent))
    folder = Path(tempfile.mkdtemp(prefix=f"{parcel.name}.torn-", dir=target.parent))
    try:
        for part in parcel.parts:
            with (folder / part.file).open("ab") as file:
                file.write(_checked(part))
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_room(parcel: BroadcastFiles, root: Path) -> str:
    return (
        f"no room for {parcel.size:,} bytes under {root}, {shutil.disk_usage(root).free:,} free: make room, "
        "or give the executors another spark.local.dir; then run the job again, it takes up what is missing"
    )


def _checked(part: Chunk) -> bytes:
    """The bytes of a part, if they are what was sent."""
    cause: Exception | None = None
    try:
        data = part.chunk.value
        vars(part.chunk).pop("_value", None)  # it would keep every chunk in the worker for good
        whole = hashlib.sha256(data).hexdigest() == part.sha256
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  # a damaged pickle raises what it likes
        whole, cause = False, error
    if not whole:
        raise BroadcastError(
            f"a chunk of {part.file} reached {os.uname().nodename} damaged (SHA-256 differs); nothing of it "
            "was used. Run the job again; if it persists, look at that host's disk and memory"
        ) from cause
    return data


def local_root() -> str:
    """Spark's local directory of the application on this host; asked by its workers."""
    blocks = os.environ["SPARK_LOCAL_DIRS"].split(",")[0]  # …/<of the application>/blockmgr-<id>
    return os.path.dirname(blocks.rstrip("/"))
