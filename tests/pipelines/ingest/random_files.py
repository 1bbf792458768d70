"""Random drop files of every format; the generator knows which rows are good and what they mean."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

BAD: Any = object()  # the meaning of a value that makes its row bad


class Value(NamedTuple):
    """A value as it is written, and what it means."""

    written: Any
    means: Any


class File(NamedTuple):
    """A file that was written for a day, and the rows that must be loaded from it."""

    rows: int
    good: list[tuple[str, str, str, str]]  # session, user, item, time
    torn: str = ""  # a part of the message that names the file; empty for a good file


NAMES = [
    "file",
    "row",
    "reason",
    "ds",
    "drop_ds",
    "_metadata",
    "Price",
    "price",
    "a`b",
    "x.y",
    "",
    "valid_from",
]


def texts(rng: random.Random) -> Value:
    """Draw an id as text."""
    plain = rng.choice(
        ["u1", "ü-2", "12E4", "0042", "a,b", 'q"q', "two\nlines", "日本", "-", "a'b", "1.10", "x;y|z"]
    )
    return rng.choice(
        [
            Value(plain, plain),
            Value(f"  {plain} ", plain),
            Value("12345678.0", "12345678"),
            Value("1.2345678E7", "12345678"),
            Value(rng.choice(["", " ", "NULL", "\\N", "nan", "None"]), BAD),
            Value("bad\ufffdtext", BAD),
        ]
    )


def numbers(rng: random.Random) -> Value:
    """Draw an id as a number."""
    number = rng.choice([0, 7, 123, 12345678, 1 << 40])
    return rng.choice([Value(number, str(number)), Value(float(number), str(number)), Value(None, BAD)])


def times(rng: random.Random, day: date) -> Value:
    """Draw a time as text."""
    clock = datetime(
        day.year, day.month, day.day, rng.randrange(24), rng.randrange(60), rng.randrange(60), tzinfo=UTC
    )
    utc = clock.strftime("%Y-%m-%d %H:%M:%S")
    other = (clock + timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M:%S+09:00")
    return rng.choice(
        [
            Value(utc, utc),
            Value(utc.replace(" ", "T") + "Z", utc),
            Value(other, utc),
            Value(rng.choice(["never", "2024-02-30", "1709640000", ""]), BAD),
            Value(str(day + timedelta(days=2)), BAD),
        ]
    )


def draw(
    rng: random.Random, day: date, index: int, ids: Callable[[random.Random], Value]
) -> tuple[list[list[Value]], File]:
    """Draw rows `user, item, time, session`, and the file that they belong to."""
    rows, good = [], []
    for row in range(rng.randrange(12)):
        user, item, time = ids(rng), ids(rng), times(rng, day)
        session = f"f{index}-{row}"
        rows.append([user, item, time, Value(session, session)])
        if BAD not in (user.means, item.means, time.means):
            good.append((session, user.means, item.means, time.means))
    return rows, File(len(rows), good)


def write_csv(rng: random.Random, folder: Path, day: date, index: int) -> File:
    rows, file = draw(rng, day, index, texts)
    names, extra = ["user_id", "item_id", "event_ts", "session_id"], rng.sample(NAMES, rng.randrange(4))
    order = rng.sample([*names, *extra], len(names) + len(extra))
    sink = io.StringIO()
    quoting, ending = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), rng.choice(["\n", "\r\n"])
    writer = csv.writer(sink, quoting=quoting, lineterminator=ending)
    writer.writerow(order)
    broken = 0
    for row in rows:
        values = dict(zip(names, (value.written for value in row), strict=True))
        writer.writerow([values.get(name, rng.choice(["x", "", "a\nb", '"'])) for name in order])
        if rng.random() < 0.1:
            sink.write(rng.choice(['a,"b"c,d\n', ",".join(["z"] * 20) + "\n", "only\n"]))
            broken += 1
    data = sink.getvalue().encode()
    kind = rng.random()
    name, torn = rng.choice(["part.csv", "ä %41.csv"]), ""
    if kind < 0.15:
        name, data = "deep/er/part.csv.gz", gzip.compress(data)
    elif kind < 0.25:
        name, data = "part.csv.bz2", bz2.compress(data)
    elif kind < 0.28:
        data = data.decode().encode("utf-16")
        torn = "this file is utf-16"
    elif kind < 0.31:
        name, data, torn = "part.csv.gz", gzip.compress(data * 500)[:-9], "this file is broken"
    elif kind < 0.34:
        data, torn = b"when,who\n1,2\n", "required column"
    return _put(folder / name, data, file._replace(rows=file.rows + broken), torn)


def write_json(rng: random.Random, folder: Path, day: date, index: int) -> File:
    rows, file = draw(rng, day, index, lambda rng: rng.choice([texts, numbers])(rng))
    names, lines, broken = ["user_id", "item_id", "event_ts", "session_id"], [], 0
    for row in rows:
        values = dict(zip(names, (value.written for value in row), strict=True))
        values |= {
            name: rng.choice([1, 1.5, None, [1, {"a": 2}], "x", True]) for name in rng.sample(NAMES, 2)
        }
        keys = rng.sample(list(values), len(values))
        lines.append(json.dumps({key: values[key] for key in keys}, ensure_ascii=rng.random() < 0.5))
        if rng.random() < 0.1:
            lines.append(
                rng.choice(['{"user_id": ', "[1, 2", "7", '{"user_id": 1, "user_id": 2}', "nonsense"])
            )
            broken += 1
        if rng.random() < 0.1:
            lines.append("")
    data, kind, name, torn = "\n".join(lines).encode(), rng.random(), "part.json", ""
    if kind < 0.15:
        name, data = "sub/part.json.gz", gzip.compress(data)
    elif kind < 0.19:
        name, torn = "part.json.zip", "packed in a way"
    elif kind < 0.22:
        data, torn = b"PAR1" + data, "this file is Parquet"
    return _put(folder / name, data, file._replace(rows=file.rows + broken), torn)


def write_parquet(rng: random.Random, folder: Path, day: date, index: int) -> File:
    numeric = rng.random() < 0.5
    rows, file = draw(rng, day, index, numbers if numeric else texts)
    users, items, clocks, sessions = ([row[i].written for row in rows] for i in range(4))
    columns: dict[str, pa.Array] = {"user_id": _ids(rng, users), "item_id": _ids(rng, items)}
    columns |= {"event_ts": pa.array(clocks, pa.string()), "session_id": pa.array(sessions, pa.string())}
    count = len(rows)
    for name in rng.sample(NAMES, rng.randrange(4)):
        columns[name] = rng.choice(
            [
                pa.array([1] * count, pa.time64("ns")),
                pa.nulls(count),
                pa.array([Decimal(1)] * count, pa.decimal128(30, 4)),
                pa.array([{"a": 1}] * count, pa.struct({"a": pa.int8()})),
                pa.array([b"\xff"] * count, pa.binary()),
                pa.array([1] * count, pa.timestamp("ns")),
            ]
        )
    order = rng.sample(list(columns), len(columns))
    sink = io.BytesIO()
    pq.write_table(pa.table({name: columns[name] for name in order}), sink)
    data, kind, torn = sink.getvalue(), rng.random(), ""
    if kind < 0.03:
        data, torn = data[: len(data) // 2], "not a complete Parquet file"
    elif kind < 0.06:
        data, torn = b"", "not a complete Parquet file"
    return _put(
        folder / rng.choice(["part.parquet", "a b/c[1].parquet", "100%25.parquet", "no-ending"]),
        data,
        file,
        torn,
    )


def _ids(rng: random.Random, values: list[Any]) -> pa.Array:
    """Write the ids of a file in one of the types that writers choose."""
    if any(isinstance(value, str) for value in values):
        array = pa.array(values, pa.string())
        return rng.choice([array, array.dictionary_encode(), array.cast(pa.binary())])
    whole = [None if value is None else int(value) for value in values]
    return rng.choice(
        [
            pa.array(whole, pa.int64()),
            pa.array([None if v is None else float(v) for v in whole], pa.float64()),
            pa.array([None if v is None else Decimal(v) for v in whole], pa.decimal128(38, 2)),
            pa.array(whole, pa.uint64()),
        ]
    )


def _put(path: Path, data: bytes, file: File, torn: str) -> File:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return file._replace(torn=torn)
