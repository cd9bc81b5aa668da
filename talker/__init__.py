"""talker: a short video of a person talking becomes an avatar that says anything."""

__version__ = "0.1.0"
