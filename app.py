"""Start the app: ``python app.py``. Layout and wiring are in ``talker.ui``, the work in ``talker.studio``."""

from __future__ import annotations

import argparse
import os
import threading
from pathlib import Path

# Before Gradio is imported: no outside connection, and nothing from a stray environment may widen the surface.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
for name in ("GRADIO_VIBE_MODE", "GRADIO_MCP_SERVER", "GRADIO_ALLOWED_PATHS", "GRADIO_SHARE"):
    os.environ.pop(name, None)

if "SPACES_ZERO_GPU" in os.environ:  # it lends GPUs by changing torch, and wants to come first
    import spaces  # noqa: F401

from talker.studio import Studio, StudioConfig  # noqa: E402
from talker.ui import build_app, launch  # noqa: E402

WARM_UP_AFTER_S = 1.0
"""Imports share the processor with the first page: earlier that page waits, later the first sentence does."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main() -> None:
    """Serve until interrupted, with a worker beside the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    on_space = "SPACE_ID" in os.environ
    parser.add_argument("--host", default="0.0.0.0" if on_space else "127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "7860")), help="port to bind")
    parser.add_argument(
        "--home", type=Path, help="folder of avatars and jobs (default: TALKER_HOME or ./home)"
    )
    parser.add_argument("--no-worker", action="store_true", help="do not start a worker beside the app")
    arguments = parser.parse_args()

    shared = arguments.host not in LOOPBACK
    studio = Studio(arguments.home, config=StudioConfig.from_environment())
    studio.start(worker=not arguments.no_worker)
    warm_up = threading.Timer(WARM_UP_AFTER_S, studio.warm_up)
    warm_up.daemon = True
    warm_up.start()
    launch(build_app(studio, shared=shared), studio, host=arguments.host, port=arguments.port, shared=shared)


if __name__ == "__main__":
    main()
