"""The second family's published command lines, over the library."""
