"""Configuration: YAML files, the typed schema they must satisfy, and the table of benchmarks."""

from configs.benchmarks import BENCHMARKS, Benchmark
from configs.detector import DetectorConfig
from configs.load import load_config
from configs.mapping import dump_yaml, from_mapping, to_dict
from configs.referring import ReferringConfig
from configs.schema import GroundingConfig, PretrainConfig

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
