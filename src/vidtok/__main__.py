"""The command `vidtok`, run as `python -m vidtok`."""

import sys

from vidtok.cli import main

if __name__ == "__main__":
    sys.exit(main())
