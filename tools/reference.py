"""Write the pages that the code describes: docs/configure.md, docs/errors.md and conf/settings.schema.json.

    python tools/reference.py [FOLDER] [--check]

FOLDER is the checkout whose files are written (default: this one). With `--check` nothing is written, and the
exit code is 1 if a file differs from what would be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # an installed copy of the packages would describe itself

import error_page  # noqa: E402
import settings_reference  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a file is not up to date"
    )
    options = parser.parse_args(arguments)
    old = 0
    for name, text in make_files().items():
        path = options.folder / name
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"error: {path} is not what the code describes; run `make docs`", file=sys.stderr)
            old = 1
    return old


def make_files() -> dict[str, str]:
    """Return the text of each file by its path."""
    schema = settings_reference.make_schema()
    return {
        "conf/settings.schema.json": settings_reference.write_schema(schema),
        "docs/configure.md": settings_reference.write_page(schema),
        "docs/errors.md": error_page.write_page(ROOT),
    }


if __name__ == "__main__":
    sys.exit(main())
