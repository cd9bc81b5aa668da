"""The pages of the app: layout, style and wiring. Everything they do is one call into ``talker.studio``."""

from talker.ui.app import build_app, launch

__all__ = ["build_app", "launch"]
