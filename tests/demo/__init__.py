"""Tests of how the demo runs its commands."""
