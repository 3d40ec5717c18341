"""The front door: ``farcast <command>``; a command's code is imported only when it is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Hand the command line over to the role it names."""
    match sys.argv[1:2]:
        case ["origin"]:
            from .origin.cli import app
        case ["relay"]:
            from .relay.cli import app
        case _:
            from .node.cli import app

            app(prog_name="farcast")
            return
    app(args=sys.argv[2:], prog_name=f"farcast {sys.argv[1]}")


if __name__ == "__main__":
    main()
