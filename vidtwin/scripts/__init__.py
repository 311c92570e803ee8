"""The published command lines, over the library."""
