"""``python -m steerward``."""

from steerward.cli.main import main

raise SystemExit(main())
