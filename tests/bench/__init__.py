"""The project's own benchmark: `python3 tests/bench`."""
