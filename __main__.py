"""The front door: ``farcast <command>``; a command's code is imported only when it is called."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Hand the command line over to the role it names."""
    from .node.console import start

    arguments, name = sys.argv[1:], "farcast"
    match arguments[:1]:
        case ["origin"]:
            from .origin.cli import app
        case ["relay"]:
            from .relay.cli import app
        case ["simulate"]:
            from .origin.fraud.cli import app
        case _:
            from .node.cli import app

            if "_FARCAST_COMPLETE" in os.environ:  # the shell completes every role's commands
                from .origin import cli as origin
                from .origin.fraud import cli as simulate
                from .relay import cli as relay

                app.add_typer(origin.app, name="origin")
                app.add_typer(relay.app, name="relay")
                app.add_typer(simulate.app, name="simulate")
            sys.exit(start(app, arguments, name))
    sys.exit(start(app, arguments[1:], f"{name} {arguments[0]}"))


if __name__ == "__main__":
    main()
