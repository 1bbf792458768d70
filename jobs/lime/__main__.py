"""Run `python -m jobs.lime`, which is the same as `lime`."""

from __future__ import annotations

from jobs.lime.app import main

if __name__ == "__main__":
    main()
