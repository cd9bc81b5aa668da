"""The pages of the app: layout, style and wiring. Everything they do is one call into ``talker.studio``."""

from talker.ui import stubs

stubs.skip()

from talker.ui.app import build_app, launch  # noqa: E402

__all__ = ["build_app", "launch"]
