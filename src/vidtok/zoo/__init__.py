"""Which models there are by name, how their configurations are read, and where their weights come from."""
