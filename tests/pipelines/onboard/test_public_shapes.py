"""Logs in the shape of well-known public ones are understood without a question about their columns."""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.onboard.begin import begin
from pipelines.settings.settings import Settings, load_settings

ROWS, USERS, ITEMS = 2000, 200, 300
FIRST = dt.datetime(2023, 5, 1)


def when(row: int) -> dt.datetime:
    return FIRST + dt.timedelta(minutes=row * 43)


def user(row: int) -> int:
    return row * 7 % USERS + 1


def item(row: int) -> int:
    return row * row % ITEMS + 1


def write(path: Path, names: Sequence[str] | None, rows: Sequence[Sequence[Any]], **dialect: Any) -> None:
    encoding = dialect.pop("encoding", "utf-8")
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, **dialect)
        writer.writerows(([names] if names else []) + list(rows))


def shop_clicks(root: Path) -> None:
    """Write milliseconds, types and transactions, next to tables that describe no item or user."""
    kinds = ["view", "view", "addtocart", "transaction"]
    rows = [
        [int(when(i).timestamp() * 1000), user(i), kinds[i % 4], item(i), i if i % 4 == 3 else ""]
        for i in range(ROWS)
    ]
    write(root / "events.csv", ["timestamp", "visitorid", "event", "itemid", "transactionid"], rows)
    write(root / "category_tree.csv", ["categoryid", "parentid"], [[i, i // 3] for i in range(100)])
    properties = [[int(when(i).timestamp() * 1000), i % ITEMS + 1, "color", i % 50] for i in range(ROWS)]
    write(root / "item_properties.csv", ["timestamp", "itemid", "property", "value"], properties)


def ratings(root: Path) -> None:
    """Write ratings, films and users without headers, in two dialects."""
    rows = [[user(i), item(i), 1 + i % 5, int(when(i).timestamp())] for i in range(ROWS)]
    write(root / "u.data", None, rows, delimiter="\t")
    films = [[i, f"Café {i}", "http://films", i % 2] for i in range(1, ITEMS + 1)]
    write(root / "u.item", None, films, delimiter="|", encoding="latin-1")
    users = [[i, 20 + i % 40, "MF"[i % 2], ["writer", "student"][i % 2]] for i in range(1, USERS + 1)]
    write(root / "u.user", None, users, delimiter="|")


def reviews(root: Path) -> None:
    """Write reviews as JSON lines."""
    with (root / "reviews.json").open("w") as file:
        for i in range(ROWS):
            row = {
                "reviewerID": f"A{user(i):05}X", "asin": f"B00{item(i):05}", "reviewerName": "Bob",
                "helpful": [0, 1],
                "overall": float(1 + i * i // 7 % 5), "reviewText": f"text {i}",
                "unixReviewTime": int(when(i).timestamp()),
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def fashion(root: Path) -> None:
    """Write purchases of a day, with ids that are long hexadecimal numbers or begin with zeros."""
    rows = [
        [str(when(i).date()), f"{user(i):064x}", f"0{item(i):06}", f"{(i % 90) / 1000:.4f}"]
        for i in range(ROWS)
    ]
    write(root / "transactions.csv", ["t_dat", "customer_id", "article_id", "price"], rows)
    articles = [[f"0{i:06}", f"Top {i // 3}", f"group {i % 9}"] for i in range(1, ITEMS + 1)]
    write(root / "articles.csv", ["article_id", "prod_name", "group_name"], articles)
    customers = [[f"{i:064x}", "ACTIVE" if i % 5 else "LEFT", 20 + i % 50] for i in range(1, USERS + 1)]
    write(root / "customers.csv", ["customer_id", "club_member_status", "age"], customers)


def views(root: Path) -> None:
    """Write views of which a third have no user, in words that are no null."""
    rows = [[i // 4, user(i) if i % 3 else "NA", item(i), i * 7, str(when(i).date())] for i in range(ROWS)]
    write(
        root / "views.csv", ["sessionId", "userId", "itemId", "timeframe", "eventdate"], rows, delimiter=";"
    )


def orders(root: Path) -> None:
    """Write one JSON array of nested orders, some of them cancelled."""
    rows = [
        {
            "order": {"id": i // 3, "placed_at": f"{when(i).isoformat()}+01:00"},
            "customer": {"uuid": f"u-{user(i):04x}"}, "line": {"product_id": item(i), "qty": 1 + i % 3},
            "status": "paid" if i % 20 else "cancelled",
        }
        for i in range(ROWS)
    ]  # fmt: skip
    (root / "orders.json").write_text(json.dumps(rows, indent=1))


FASHION = (["group_name", "prod_name"], ["age", "club_member_status"])
SHAPES: list[tuple[Callable[[Path], None], tuple[str, str, str], tuple[list[str], list[str]], str | None]] = [
    (shop_clicks, ("visitorid", "itemid", "timestamp"), ([], []), None),
    (ratings, ("column1", "column2", "column4"), (["column4"], ["column2", "column3", "column4"]), None),
    (reviews, ("reviewerID", "asin", "unixReviewTime"), ([], []), None),
    (fashion, ("customer_id", "article_id", "t_dat"), FASHION, None),
    (views, ("userId", "itemId", "eventdate"), ([], []), "CAST(userId AS STRING) NOT IN ('NA')"),
    (
        orders, ("customer_uuid", "line_product_id", "order_placed_at"), ([], []),
        "coalesce(lower(CAST(status AS STRING)), '') NOT IN ('cancelled')",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "columns", "features", "where"), SHAPES)
def test_a_public_shape_is_understood(
    make: Callable[[Path], None],
    columns: tuple[str, str, str],
    features: tuple[list[str], list[str]],
    where: str | None,
    tmp_path: Path,
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    make(source)
    found = begin(source, tmp_path / "own" / "lime.yaml", {}, None)
    own: Settings = load_settings(found.config)
    events = own.ingest.events
    assert (events.user_id, events.item_id, events.event_ts) == columns
    assert (sorted(own.ingest.items.columns), sorted(own.ingest.users.columns)) == features
    assert events.where == where
    assert (found.rows, found.written, found.faults) == (ROWS, ROWS, [])


def film_ratings(root: Path) -> None:
    """Write ratings and films with headers; a film has one to three genres in one text."""
    rows = [[user(i), item(i), 1 + i * i // 7 % 5, int(when(i).timestamp())] for i in range(ROWS)]
    write(root / "ratings.csv", ["userId", "movieId", "rating", "timestamp"], rows)
    genres = ["Drama", "Drama|War", "Comedy", "Comedy | War|", "", "War"]
    films = [[i, f"Été {i}, The ({1900 + i % 90})", genres[i % 6]] for i in range(1, ITEMS + 1)]
    write(root / "movies.csv", ["movieId", "title", "genres"], films)


def test_texts_of_several_values_become_lists_and_titles_name_items(tmp_path: Path) -> None:
    film_ratings(tmp_path)
    found = begin(tmp_path, tmp_path / "own" / "lime.yaml", {}, None)
    own = load_settings(found.config)
    assert own.ingest.items.columns == {"genres": "array<string>", "title": "string"}
    assert [(c.name, c.kind) for c in own.models[0].config.item_columns] == [("genres", "list")]
    assert own.report.item_name == ["title"]
    assert [note.said for note in found.notes if note.what == "unused_columns"] == [
        "nothing reads these columns of ratings: rating"
    ]
    items = pq.read_table(next((tmp_path / "own" / "raw" / "items").rglob("*.parquet"))).to_pylist()
    assert [row["genres"] for row in items[:6]] == [
        ["Drama", "War"], ["Comedy"], ["Comedy", "War"], None, ["War"], ["Drama"]
    ]  # fmt: skip
    assert items[0]["title"] == "Été 1, The (1901)"


def test_values_that_stay_in_place_are_not_split(tmp_path: Path) -> None:
    """Check that folders of days are read by ingest itself, which reads a text as one value."""
    film_ratings(tmp_path)
    for name in ("events", "items"):
        (tmp_path / "raw" / name / "ds=2023-05-01").mkdir(parents=True)
    (tmp_path / "ratings.csv").rename(tmp_path / "raw" / "events" / "ds=2023-05-01" / "a.csv")
    (tmp_path / "movies.csv").rename(tmp_path / "raw" / "items" / "ds=2023-05-01" / "a.csv")
    own = load_settings(begin(tmp_path / "raw", tmp_path / "own" / "lime.yaml", {}, None).config)
    assert own.drops == str(tmp_path / "raw")
    assert own.ingest.items.columns == {"genres": "string", "title": "string"}
    assert [(c.name, c.kind) for c in own.models[0].config.item_columns] == [("genres", "category")]


def test_a_description_in_the_log_names_the_items(tmp_path: Path) -> None:
    rows = [[i // 3, user(i), f"A{item(i)}", f"Cup no. {item(i)}", str(when(i))] for i in range(ROWS)]
    names = ["Invoice", "Customer ID", "StockCode", "Description", "InvoiceDate"]
    write(tmp_path / "sales.csv", names, rows)
    found = begin(tmp_path / "sales.csv", tmp_path / "own" / "lime.yaml", {}, None)
    own = load_settings(found.config)
    assert own.ingest.items.columns == {"Description": "string"}
    assert (own.report.item_name, own.models[0].config.item_columns) == (["Description"], ())
    items = pq.read_table(next((tmp_path / "own" / "raw" / "items").rglob("*.parquet"))).to_pylist()
    assert {row["StockCode"]: row["Description"] for row in items}["A5"] == "Cup no. 5"
