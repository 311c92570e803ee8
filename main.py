"""The published command to train a model; `vidtok train` is the same. See docs/training.md."""

import sys

from vidtok.cli.guard import guarded
from vidtok.errors import without_truncation
from vidtok.training.runs.entry import train

if __name__ == "__main__":
    sys.exit(guarded(train, advice=without_truncation))
