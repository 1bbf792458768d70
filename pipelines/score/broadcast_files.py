"""Send files to all hosts as broadcast chunks; each host unpacks them once for its Python workers.

Spark's broadcast carries chunks, far below its limits of size, from executor to executor, and leaves each
chunk in a file that a worker reads only when it asks for the value. The first worker of a host that needs the
files unpacks them, chunk by chunk, into a folder that the host's workers share; the other workers find them
there and map the same pages.

The folder is in Spark's local directory of the application, next to the block manager's. Standalone
workers and YARN's node managers share that directory among the application's executors on the host, and
remove it when the application ends. With a local master the folder is the driver's scratch folder.
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

CHUNK_BYTES = 16 << 20  # of one broadcast; a worker that unpacks holds one chunk at a time


class BroadcastError(LimeError):
    """Files arrived damaged, or the disk has no room for them."""

    remedy = "retry"


class Chunk(NamedTuple):
    """A piece of a file, with the digest of its bytes."""

    file: str
    sha256: str
    broadcast: Broadcast[bytes]


@dataclass(frozen=True)
class BroadcastFiles:
    """Files that were sent to the hosts.

    Args:
        name: the name of the folder that they are unpacked into.
        size: bytes of all files.
        chunks: the pieces of the files, in order.
        root: the folder of that folder; None for Spark's local directory of the application.
    """

    name: str
    size: int
    chunks: tuple[Chunk, ...]
    root: str | None = None

    def destroy(self) -> None:
        """Free the chunks on all hosts; unpacked files remain."""
        for chunk in self.chunks:
            chunk.broadcast.destroy()


@dataclass
class BroadcastSender:
    """Takes the bytes of files on the driver and sends them as broadcasts."""

    context: SparkContext
    chunks: list[Chunk] = field(default_factory=list)
    size: int = 0

    def add(self, file: str, data: bytes) -> None:
        """Append bytes to a file."""
        for start in range(0, len(data), CHUNK_BYTES):
            piece = data[start : start + CHUNK_BYTES]
            self.chunks.append(Chunk(file, hashlib.sha256(piece).hexdigest(), self.context.broadcast(piece)))
        self.size += len(data)

    def finish(self) -> BroadcastFiles:
        """Return everything that was added, as the files of one folder."""
        digest = hashlib.sha256("".join(chunk.file + chunk.sha256 for chunk in self.chunks).encode())
        name = f"lime-{self.context.applicationId}-{digest.hexdigest()[:16]}"
        local = str(self.context.master).split("[")[0] == "local"
        return BroadcastFiles(name, self.size, tuple(self.chunks), scratch_folder() if local else None)


def unpack_once(files: BroadcastFiles) -> Path:
    """Return the folder with the files on this host; the first worker that asks unpacks them.

    Raises:
        BroadcastError: a chunk differs from what was sent, or the disk has no room.
    """
    root = Path(files.root or local_root())
    target = root / files.name
    try:
        with (root / f"{files.name}.lock").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)  # the kernel releases it when the worker dies
            if not target.exists():
                for torn in root.glob(f"{files.name}.torn-*"):  # left by workers that died while unpacking
                    shutil.rmtree(torn, ignore_errors=True)
                _unpack(files, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BroadcastError(_no_room(files, root)) from error
        raise BroadcastError(f"the bank cannot be unpacked under {root}: {error}") from error
    return target


def _unpack(files: BroadcastFiles, target: Path) -> None:
    """Write the files into a folder of another name, and rename it when it is complete."""
    if shutil.disk_usage(target.parent).free < files.size:
        raise BroadcastError(_no_room(files, target.parent))
    folder = Path(tempfile.mkdtemp(prefix=f"{files.name}.torn-", dir=target.parent))
    try:
        for chunk in files.chunks:
            with (folder / chunk.file).open("ab") as file:
                file.write(_read_chunk(chunk))
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_room(files: BroadcastFiles, root: Path) -> str:
    return (
        f"no room for {files.size:,} bytes under {root}, {shutil.disk_usage(root).free:,} free: make room, "
        "or give the executors another spark.local.dir; then run the job again, it does only what is missing"
    )


def _read_chunk(chunk: Chunk) -> bytes:
    """Return the bytes of a chunk, if they are what was sent."""
    cause: Exception | None = None
    try:
        data = chunk.broadcast.value
        vars(chunk.broadcast).pop("_value", None)  # otherwise the worker would keep every chunk in memory
        intact = hashlib.sha256(data).hexdigest() == chunk.sha256
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  # unpickling damaged bytes may raise any error
        intact, cause = False, error
    if not intact:
        raise BroadcastError(
            f"a chunk of {chunk.file} reached {os.uname().nodename} damaged (SHA-256 differs); nothing of it "
            "was used. Run the job again; if it persists, look at that host's disk and memory"
        ) from cause
    return data


def local_root() -> str:
    """Return Spark's local directory of the application on this host; only its workers can call this."""
    blocks = os.environ["SPARK_LOCAL_DIRS"].split(",")[0]  # …/<of the application>/blockmgr-<id>
    return os.path.dirname(blocks.rstrip("/"))
