"""`python -m lime_model.scoring.native`: compile the kernel; a missing compiler is no error."""

from lime_model.scoring.native import build

if __name__ == "__main__":
    print(build())
