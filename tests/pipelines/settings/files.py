"""Write settings files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from synthetic import shop


def write(tmp_path: Path, **changes: Any) -> Path:
    """Write the settings of the synthetic shop with some sections replaced."""
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({**shop.settings(tmp_path), **changes}))
    return path
