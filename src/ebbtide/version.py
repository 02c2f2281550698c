"""The version, apart from the package's first file, so that any room may read it."""

__version__ = "0.2.0"
