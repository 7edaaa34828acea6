"""Configurations: YAML files, ours and released ones, read into a checked schema."""

from groundwork.settings.detector import DetectorConfig
from groundwork.settings.load import load_config, load_detector
from groundwork.settings.parsing import dump_yaml, from_mapping, to_dict
from groundwork.settings.run import RunConfig
from groundwork.settings.training import StageConfig

__all__ = [
    "DetectorConfig",
    "RunConfig",
    "StageConfig",
    "dump_yaml",
    "from_mapping",
    "load_config",
    "load_detector",
    "to_dict",
]
