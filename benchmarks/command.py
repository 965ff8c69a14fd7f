"""What every benchmark is as a command: flags from its setting, tables, one line of JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from transformers.utils import logging as transformers_logging

from benchmarks.measure import environment, module_name

SettingT = TypeVar("SettingT")


def main(setting_type: type[SettingT], run: Callable[[SettingT, Path], dict[str, Any]]) -> None:
    """Run a benchmark: print its tables, then its result as a line of JSON, and keep it if asked.

    Args:
        setting_type: Dataclass with a default for each field; each field is a flag.
        run: Returns the figures, with `tables` among them; it may write into the folder.

    Raises:
        SystemExit: If scores differ, so that nothing was timed, or a flag is not known.
    """
    setting, out = _parse(setting_type)
    # A run that is ended ends the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(setting, Path(folder))
    name = module_name().rpartition(".")[2]
    result = {"benchmark": name, **environment(), "setting": asdict(setting), **figures}  # pyright: ignore[reportArgumentType, reportCallIssue]
    for one in result["tables"]:
        print_table(one)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


def _parse(setting_type: type[SettingT]) -> tuple[SettingT, Path | None]:
    text = sys.modules["__main__"].__doc__
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    settings = fields(setting_type)  # pyright: ignore[reportArgumentType]
    for field in settings:
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default)
    parser.add_argument("--out", type=Path, help="file that keeps the result")
    options = vars(parser.parse_args())
    out = options.pop("out")
    return setting_type(**options), out


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return a table as results keep it: for people here, for the pages of the documentation."""
    assert all(len(row) == len(columns) for row in rows)
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}


def print_table(content: dict[str, Any]) -> None:
    """Print a table with its columns aligned, the first to the left."""
    lines = [content["columns"], *content["rows"]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{content['title']}")
    for first, *others in lines:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        print("  " + "   ".join([first.ljust(widths[0]), *cells]))
