"""ms-swift's plugin: edit the URL and the objectives, name this file as external_plugins."""

from swift.rewards import orms  # pyright: ignore[reportMissingImports]

from steerward.clients.ms_swift import register

# With objectives=None the server is asked for all that it has.
register(orms, "http://127.0.0.1:8000", objectives=["helpfulness", "verbosity"])
