"""``farcast origin backup`` and ``restore``: all of an origin in one file, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..command import origin_home, perform
from ..passphrase import read_passphrase

BackupPassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="A file whose first line is the backup's passphrase."),
]

app = typer.Typer()


@app.command(
    epilog="Example: farcast origin backup /mnt/stick/films.backup --passphrase-file /root/passphrase"
)
@guarded
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; one that is there is replaced.")],
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Take the films too; else they are published again.")
    ] = False,
    passphrase_file: BackupPassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write everything this origin needs to one encrypted file, running or not."""
    del debug
    from ..keys import new_passphrase

    console = Console(as_json=as_json)
    given = read_passphrase(passphrase_file)
    passphrase = given or new_passphrase()
    arguments = {"file": str(file.absolute()), "passphrase": passphrase, "blocks": blocks}
    found = perform(home, "backup", arguments, console, label=f"backup {file.name}")
    found["passphrase"] = None if given else passphrase
    console.result(
        found,
        f"Wrote {found['file']}: {found['bytes'] / 1e6:.1f} MB, {found['files']} files"
        + (", films included" if blocks else ", without the films"),
        *([] if given else [f"  passphrase  {passphrase}  (it is not shown again)"]),
        f"Bring it back with: farcast origin restore {found['file']} --home DIR",
    )


@app.command(
    epilog="Example: farcast origin restore films.backup --home /var/lib/farcast --passphrase-file /root/pass"
)
@guarded
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `farcast origin backup` wrote.")],
    passphrase_file: BackupPassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make an empty home the origin that was backed up; all of it is checked before it moves in."""
    del debug
    from .restore import restore as bring_back

    console, path = Console(as_json=as_json), origin_home(home)
    passphrase = read_passphrase(passphrase_file)
    if passphrase is None:
        passphrase = typer.prompt("passphrase of the backup", hide_input=True, err=True).strip()
    with console.progress(f"restore {file.name}") as report_progress:
        ledger = os.environ.get("FARCAST_MONEY_LEDGER", "")
        found = bring_back(file, path, passphrase, report_progress, ledger=ledger)
    if found["ledger"] == "postgresql":
        console.warn("the ledger is in PostgreSQL: name it as [money] ledger before you start this origin")
    settled = max(found["settled"], default=None)
    console.result(
        {
            "home": str(path),
            "name": found["name"],
            "peer_id": found["peer_id"],
            "made": found["made"],
            "catalog_entries": found["catalog"]["size"],
            "intake_entries": found["intake_entries"],
            "settled": settled,
            "ledger": found["ledger"],
            "blocks": found["blocks"],
        },
        f"{found['name']} is back in {path}, as it was at {found['made']}",
        f"  catalog  {found['catalog']['size']} entries",
        f"  pulses   {found['intake_entries']} entries in the intake log",
        f"  settled  {settled or 'nothing yet'}",
        *([] if found["blocks"] else ["Publish the films again: their blocks were not in the backup."]),
        "Next: farcast origin run; never run the old one and this one at once",
    )
