"""A parameter server you can trust, measure and read."""

__version__ = "0.1.0"
