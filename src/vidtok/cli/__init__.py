"""The command `vidtok`: subcommands parse, call the library and print.

Heavy imports, PyTorch first of all, are left to the subcommand that needs them, so that `--help` is quick.
"""

from vidtok.cli.app import main

__all__ = ["main"]
