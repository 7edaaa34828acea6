"""Configuration: YAML files, the typed schema they must satisfy, and the table of benchmarks."""

from groundwork.benchmarks import BENCHMARKS, Benchmark
from groundwork.settings.detector import DetectorConfig
from groundwork.settings.load import load_config
from groundwork.settings.parsing import dump_yaml, from_mapping, to_dict
from groundwork.settings.referring import ReferringConfig
from groundwork.settings.schema import GroundingConfig, PretrainConfig

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "DetectorConfig",
    "GroundingConfig",
    "PretrainConfig",
    "ReferringConfig",
    "dump_yaml",
    "from_mapping",
    "load_config",
    "to_dict",
]
