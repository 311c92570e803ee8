"""`python -m vidtok`: the command."""

import sys

from vidtok.cli import main

if __name__ == "__main__":
    sys.exit(main())
