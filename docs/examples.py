"""Run the examples of a page and write what they print: ``python -m docs.examples``.

A fenced block whose info string ends in ``run`` is run against a live server with the model that
ships; the fence after it (``text output``) holds what it printed. The address in the page,
``http://127.0.0.1:8000``, is replaced by the server's own. A test runs the blocks again and
compares numbers to a tolerance.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md",)
ADDRESS = "http://127.0.0.1:8000"

_EXAMPLE = re.compile(
    r"^```(?P<language>\w+) run\n(?P<code>.*?)^```\n(?P<between>.*?)"
    r"^```text output\n(?P<output>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"[-+]?\d+\.\d+(?:e[-+]?\d+)?")


def examples(text: str) -> list[re.Match[str]]:
    """Return the examples of a page, each with its language, code and output."""
    return list(_EXAMPLE.finditer(text))


def run_example(example: re.Match[str], url: str, folder: Path) -> str:
    """Return what an example prints when it is run in a folder.

    Raises:
        RuntimeError: If it fails.
    """
    code = example["code"].replace(ADDRESS, url)
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(
        [*command[example["language"]], code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"an example failed: {done.stderr}\n{code}")
    return done.stdout


def differs(expected: str, found: str, *, tolerance: float) -> bool:
    """Return whether two outputs differ in words, or in a number by more than the tolerance."""
    if _NUMBER.sub("#", expected) != _NUMBER.sub("#", found):
        return True
    numbers = zip(_NUMBER.findall(expected), _NUMBER.findall(found), strict=True)
    return any(abs(float(a) - float(b)) > tolerance for a, b in numbers)


@contextmanager
def served() -> Iterator[str]:
    """Run a server with the model that ships on a free port; give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "steerward", "serve", "--port", "0", "--device", "cpu", "--no-jobs"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        url = next(
            found[1] for line in process.stderr if (found := re.search(r"on (http://\S+)", line))
        )
        _wait_until_warm(url)
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _wait_until_warm(url: str) -> None:
    """Return when the server answers requests: it listens before that."""
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/health").status_code != 200:
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not get warm")
        time.sleep(0.05)


def with_outputs(text: str, url: str, folder: Path) -> str:
    """Return a page with the outputs that its examples give now."""
    for example in reversed(examples(text)):
        begin, end = example.span("output")
        text = text[:begin] + run_example(example, url, folder) + text[end:]
    return text


def main() -> None:
    """Write the outputs of all pages."""
    import tempfile

    with served() as url, tempfile.TemporaryDirectory() as folder:
        for page in PAGES:
            page.write_text(with_outputs(page.read_text(), url, Path(folder)))


if __name__ == "__main__":
    main()
