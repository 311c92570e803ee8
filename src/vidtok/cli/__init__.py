"""The command `vidtok`: subcommands parse, call the library and print.

What the library needs, PyTorch first of all, is imported by the subcommand that needs it, so that `--help` is quick.
"""

from vidtok.cli.app import main

__all__ = ["main"]
