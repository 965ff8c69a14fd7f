"""Settings: one frozen schema per command, filled from defaults, TOML files, environment, flags.

The help text of every flag is the docstring below its field. Unknown keys are refused in files
as on the command line. No environment variable is read anywhere else.
"""

from steerward.config.compat import CompatConfig, CompatProfile, TemplateName
from steerward.config.engine import Dtype, EngineConfig
from steerward.config.jobs import JobsConfig
from steerward.config.policy import PolicyConfig
from steerward.config.score_file import ScoreFileConfig
from steerward.config.serve import ServeConfig
from steerward.config.settings import (
    ENVIRONMENT_PREFIX,
    POSITIONAL,
    Settings,
    SettingsT,
    environment_name,
    load_settings,
)

__all__ = [
    "ENVIRONMENT_PREFIX",
    "POSITIONAL",
    "CompatConfig",
    "CompatProfile",
    "Dtype",
    "EngineConfig",
    "JobsConfig",
    "PolicyConfig",
    "ScoreFileConfig",
    "ServeConfig",
    "Settings",
    "SettingsT",
    "TemplateName",
    "environment_name",
    "load_settings",
]
