"""``python -m talker``: see ``talker.cli``."""

from talker.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
