"""The command line: ``python -m talker COMMAND``. The names are those of the library.

Exit codes: 0 done, 1 user error (one clear message on stderr), 2 usage.
"""

from __future__ import annotations

import os
import sys

# mediapipe and its TensorFlow Lite talk a lot on stderr.
os.environ.setdefault("GLOG_minloglevel", "2")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    from talker.cli.parser import build_parser
    from talker.errors import TalkerError

    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except TalkerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except FileNotFoundError as error:
        sys.stderr.write(f"error: There is no file called {error.filename!r}.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Finished parts are kept; --resume continues.\n")
        return 130
    return 0
