"""Export published lists as Parquet: one folder for each night and run, which is complete with `_SUCCESS`."""

from __future__ import annotations

from pyspark.sql import functions as F

from pipelines.export.exporter import ExportDelayed, Lists, Report
from pipelines.schemas import SQL_TYPES, USER_ID
from pipelines.settings.export import ParquetExport
from pipelines.store.person_files import count_rows, find_spellings, list_parquet
from pipelines.store.storage import drop_folder, list_folders, list_names, path_exists, rename_folder
from pipelines.store.tables import Warehouse
from pipelines.udfs.list_store import escape_glob
from pipelines.udfs.person import Person

NEW = ".new"  # suffix of a folder that is being rewritten
DONE = "_SUCCESS"


class ParquetExporter:
    """An `Exporter` that writes Parquet files to a folder."""

    name = "parquet"

    def __init__(self, warehouse: Warehouse, settings: ParquetExport) -> None:
        self.spark, self.settings = warehouse.spark, settings
        self.root = settings.path.rstrip("/")
        self.user_type = SQL_TYPES[warehouse.settings.ids.user_id]

    def find_newer(self, lists: Lists) -> str | None:
        """Return None, as each night has its own folder and so replaces no other night."""
        return None

    def load(self, lists: Lists) -> Report:
        """Write the lists to the folder of their run, one row for each item, unless it is complete."""
        folder = self._folder(lists)
        files = max(1, -(-lists.count // self.settings.users_per_file))
        if not path_exists(self.spark, f"{folder}/{DONE}"):  # a complete folder may be in use
            ranked = lists.rows.select(USER_ID, F.posexplode("candidates").alias("rank", "candidate"))
            rank = (F.col("rank") + 1).alias("rank")
            flat = ranked.select(USER_ID, rank, "candidate.item_id", "candidate.score")
            ordered = flat.repartitionByRange(files, USER_ID).sortWithinPartitions(USER_ID, "rank")
            ordered.write.mode("overwrite").parquet(folder)
        return {"path": folder, "users": lists.count, "files": files}

    def verify(self, lists: Lists) -> None:
        """Count the rows of the folder, and remove it if the count is wrong.

        Raises:
            ExportDelayed: the folder held more or fewer rows than the lists have.
        """
        folder = self._folder(lists)
        wanted = lists.rows.agg(F.sum(F.greatest(F.size("candidates"), F.lit(0)))).collect()[0][0] or 0
        found = self.spark.read.parquet(escape_glob(folder)).count()
        if found != wanted:
            drop_folder(self.spark, folder)
            raise ExportDelayed(
                f"{folder} held {found} rows, and the lists of {lists.run_id} are {wanted}; the folder was "
                "removed. Run the job again: it writes it anew"
            )

    def flip(self, lists: Lists) -> Report:
        """Remove the folders of other runs of the night."""
        night = self._night(lists.night)
        for name in list_names(self.spark, night):
            if name != f"run={lists.run_id}":
                drop_folder(self.spark, f"{night}/{name}")
        return {}

    def withdraw(self, night: str) -> None:
        """Remove the folder of the night."""
        drop_folder(self.spark, self._night(night))

    def forget(self, person: Person) -> int:
        """Rewrite every folder of any night that holds rows of the person; return the number of rows."""
        for night in self._nights():
            self._settle(f"{self.root}/{night}")
        held = self._held(person)
        folders = [f"{self.root}/{night}/{run}" for night in self._nights() for run in self._runs(night)]
        for folder in folders:
            if not path_exists(self.spark, f"{folder}/{DONE}"):
                drop_folder(self.spark, folder)  # a killed export left it, and no reader uses it
            elif any(f"/{folder.removeprefix(self.root + '/')}/" in path for path in held):
                self._rewrite(folder, person)
        return sum(held.values())

    def count(self, person: Person) -> int:
        """Count the person's rows in all files under the folders of nights, complete or not."""
        return sum(self._held(person).values())

    def _held(self, person: Person) -> dict[str, int]:
        files = [
            file for night in self._nights() for file in list_parquet(self.spark, f"{self.root}/{night}")
        ]
        return count_rows(self.spark, files, self.user_type, person)

    def _rewrite(self, folder: str, person: Person) -> None:
        rows = self.spark.read.parquet(escape_glob(folder))
        mine = F.col(USER_ID).isin(find_spellings(rows, person))
        kept = rows.where(~F.coalesce(mine, F.lit(False)))
        kept.write.mode("overwrite").parquet(folder + NEW)
        drop_folder(self.spark, folder)
        rename_folder(self.spark, folder + NEW, folder)

    def _settle(self, night: str) -> None:
        """Finish or undo rewrites of folders that a killed job did not complete."""
        names = list_names(self.spark, night)
        for name in (name for name in names if name.endswith(NEW)):
            whole = name.removesuffix(NEW)
            if whole in names or not path_exists(self.spark, f"{night}/{name}/{DONE}"):
                drop_folder(self.spark, f"{night}/{name}")
            else:  # the new folder was complete, and the old one dropped
                rename_folder(self.spark, f"{night}/{name}", f"{night}/{whole}")

    def _nights(self) -> list[str]:
        return [name for name in list_folders(self.spark, self.root) if name.startswith("night=")]

    def _runs(self, night: str) -> list[str]:
        return list_folders(self.spark, f"{self.root}/{night}")

    def _night(self, night: str) -> str:
        return f"{self.root}/night={night}"

    def _folder(self, lists: Lists) -> str:
        return f"{self._night(lists.night)}/run={lists.run_id}"
