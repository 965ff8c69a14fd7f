"""``steerward files ...``: what a running server keeps for fine-tuning."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from steerward.cli.http import ServerConnection, connect, path_of
from steerward.cli.job_settings import FileDeleteConfig, FileListConfig, FileUploadConfig
from steerward.cli.job_tables import files_table, plain
from steerward.cli.terminal import show
from steerward.protocol.errors import SteerwardError
from steerward.protocol.files import FileDeleted, FileList, FileObject


def run_list(config: FileListConfig) -> None:
    """List the files."""
    with connect(config) as connection:
        files = connection.get(path_of("files"), FileList, limit=config.limit)
    if config.json_output:
        print(files.model_dump_json(indent=2))
        return
    show(files_table(files.data))
    if files.has_more:
        print(f"there are more; show them with --limit above {config.limit}", file=sys.stderr)


def run_upload(config: FileUploadConfig) -> None:
    """Upload a file."""
    with connect(config) as connection:
        file = upload(connection, config.path)
    print(file.id, flush=True)
    print(f"{file.rows:,} rows: {file.holds}", file=sys.stderr)


def run_delete(config: FileDeleteConfig) -> None:
    """Delete a file."""
    with connect(config) as connection:
        connection.delete(path_of("files", config.file), FileDeleted)
    print(f"{config.file} is deleted")


def upload(connection: ServerConnection, path: Path) -> FileObject:
    """Send a file, with a bar where people can see one.

    Raises:
        SteerwardError: If the file cannot be read, or the server refuses it.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    try:
        with bar, bar.open(path, "rb", description=f"sending {plain(path.name)}") as file:
            return connection.upload(file, name=path.name)
    except OSError as error:
        raise SteerwardError(f"cannot read {path}: {error.strerror or error}") from error
