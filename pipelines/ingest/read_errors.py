"""Find which file is broken, and why, in an error that Spark raised while it read rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from pipelines.ingest.drop_faults import Fault
from pipelines.ingest.read_parquet import plain_path, spark_path

FILE = re.compile(r"FAILED_READ_FILE\S*\] Encountered error while reading file (\S+?)\.?\s")
CAUSE = re.compile(r"Caused by: (?:\S+\.)?(\w+(?:Exception|Error)?): (.+)")


def find_broken_file(error: Py4JJavaError | PySparkException, files: Sequence[str]) -> Fault | None:
    """Return which of `files` an error is about, with the innermost cause; None if it is about none."""
    text = str(error)
    found = FILE.search(text)
    if found is None:
        return None
    path = spark_path(found[1])
    known = [uri for uri in files if plain_path(uri) == path]
    if not known:
        return None
    causes = [f"{kind}: {said.strip()}" for kind, said in CAUSE.findall(text)]
    why = causes[-1] if causes else "its bytes are not what its format says"
    return Fault(known[0], f"this file is broken ({why[:300]}); deliver it again, or remove it")
