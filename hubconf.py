"""The hub's door: every system by its name, with the weights of a file, published or our own.

parts = torch.hub.load(
    REPOSITORY, "reftr", "refcoco_SEG.pth", config="reftr/refcoco_res", source="local"
)
groundings = parts.postprocess(parts.evaluated(batch), batch)

grounder = torch.hub.load(REPOSITORY, "grounder", "refcoco_SEG.pth")
groundings = grounder.ground("photo.jpg", ["the red circle"])
"""

from collections.abc import Callable as _Callable
from pathlib import Path as _Path
from typing import Any as _Any

from groundwork.jobs.grounder import Grounder as _Grounder
from groundwork.jobs.tokenizers import load_texts as _load_texts
from groundwork.models import SYSTEMS as _SYSTEMS
from groundwork.models.common.checkpoint import read_checkpoint as _read_checkpoint
from groundwork.models.common.system import Parts as _Parts
from groundwork.settings import RunConfig as _RunConfig
from groundwork.settings import load_config as _load_config
from groundwork.settings.load import config_of as _config_of

dependencies = [
    "torch", "torchvision", "timm", "transformers", "numpy", "PIL", "cv2", "pyarrow", "pycocotools",
    "scipy", "ruamel.yaml", "sentencepiece", "matplotlib", "tqdm", "safetensors",
]  # fmt: skip


def _config(checkpoint: _Path, config: str | _Path | None) -> _RunConfig:
    if config is not None:
        return _load_config(config, purpose="evaluation")
    kept = _read_checkpoint(checkpoint).get("config")
    if not isinstance(kept, dict):
        raise ValueError(f"{checkpoint} holds no configuration; name one, such as reftr/refcoco")
    return _config_of(kept, f"{checkpoint}: config")


def _entry(system: str) -> _Callable[..., _Parts]:
    def load(checkpoint: str | _Path, config: str | _Path | None = None) -> _Parts:
        """A system on the CPU, ready for an evaluation.

        Args:
            checkpoint: a .pth file.
            config: a shipped configuration (reftr/refcoco) or a YAML file; None: the one that the
                checkpoint was trained with, which published files do not hold.

        Raises:
            ValueError: no configuration, or one of another system, or weights that do not fit.
        """
        checkpoint = _Path(checkpoint)
        settings = _config(checkpoint, config)
        if settings.system != system:
            raise ValueError(f"{config or checkpoint} is of {settings.system}, not of {system}")
        tokenizer = _load_texts(settings, checkpoint)
        parts = _SYSTEMS[system].build(settings.model, tokenizer, training=False)
        _SYSTEMS[system].load(parts.model, checkpoint)
        parts.evaluated.eval()
        return parts

    return load


albef, reftr, refclip, simrec, alvg = map(_entry, ("albef", "reftr", "refclip", "simrec", "alvg"))


def grounder(source: str | _Path, **options: _Any) -> _Grounder:
    """Grounds phrases in images of your own; arguments and errors as of `Grounder.load`."""
    return _Grounder.load(source, **options)
