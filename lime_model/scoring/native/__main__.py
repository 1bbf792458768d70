"""`python -m lime_model.scoring.native [--all]`: compile the kernel; a missing compiler is not an error."""

import argparse

from lime_model.scoring.native import build

if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m lime_model.scoring.native", description=build.__doc__)
    options.add_argument(
        "--all", action="store_true", help="compile for every processor, not only for this one"
    )
    print(build(everything=options.parse_args().all))
