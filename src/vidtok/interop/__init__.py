"""Other programs: this package's models in them, and theirs here. Everything is optional and imported where used."""
