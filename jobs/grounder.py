"""An image and phrases of your own, by any system: what `groundwork.Grounder` is."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from groundwork import utils
from groundwork.geometry import Grounding
from groundwork.jobs import presence, pretrained
from groundwork.jobs.exported import is_exported, load_exported
from groundwork.jobs.model_card import model_card
from groundwork.jobs.open_image import ImageLike, open_image
from groundwork.jobs.presence import Calibration
from groundwork.jobs.questions import questions_of
from groundwork.jobs.recognition import About, Loaded, load_system
from groundwork.jobs.session import Session
from groundwork.jobs.tokenizers import save_tokenizer
from groundwork.models import SYSTEMS
from groundwork.settings import RunConfig, to_dict


class Grounder:
    """Grounds phrases in images; may be used by several threads, which then take turns.

        grounder = Grounder.load("checkpoint.pth")
        (found,) = grounder.ground("photo.jpg", ["the red circle"])
        found.point, found.boxes, found.mask, found.heatmap
        session = grounder.look("photo.jpg")  # encoded once for all that is asked
        session.ground("the red circle")

    Images are resized, phrases cleaned and cut, outputs read by the functions of an evaluation with
    the same configuration, so that both say the same. Only one thing is done otherwise: an image
    file is seen as it is shown, also where the release ignored its EXIF orientation.

    Attributes:
        about: what was taken for the checkpoint.
        calibration: what `Grounding.present` is made with, how its threshold was found and what
            was measured (`tools.calibrate`); None: there is none, and `present` is None.
        evidence: the name of what is calibrated; None: the system does not say it.
        gives_word_maps: whether `words` may be asked for.
    """

    def __init__(self, loaded: Loaded, calibration: Calibration | None = None) -> None:
        self._loaded = loaded
        self._questions = questions_of(loaded.config, loaded.tokenizer)
        # Explanations hook into the model, and fast tokenisers keep how they cut.
        self._lock = threading.RLock()
        self.about: About = loaded.about
        self.calibration = calibration
        self.evidence: str | None = loaded.config.model.evidence
        self.gives_word_maps: bool = loaded.config.model.word_maps

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | None = None,
        config: str | Path | RunConfig | None = None,
        tokenizer: str | Path | None = None,
        data: str | Path | None = None,
        overrides: Sequence[str] = (),
    ) -> Grounder:
        """A system from a checkpoint, published or own, told by what is in it.

        Args:
            source: a .pth file; a folder of `save_pretrained`; the id of such a folder on the hub;
                a file of `tools/export` (.onnx, .pt2).
            device: cuda, cuda:1, cpu; None: a GPU if there is one.
            config, tokenizer, data, overrides: see `jobs.recognition.load_system`; nothing has to
                be given for files that were written by this project, nor can it for exported ones.

        Raises:
            FileNotFoundError, ValueError: as there; or the calibration beside the checkpoint is of
                other weights.
        """
        if is_exported(source):
            if config or tokenizer or overrides:
                raise ValueError(
                    f"{source} is an exported file, which has its configuration and tokeniser in"
                    " it; give these when its checkpoint is exported"
                )
            return cls(*load_exported(Path(source), device))
        loaded = load_system(
            source,
            device=utils.choose_device(device),
            config=config,
            tokenizer=tokenizer,
            data=data,
            overrides=overrides,
        )
        return cls(loaded, presence.beside(loaded.path, loaded.config.model.evidence))

    def ground(
        self, image: ImageLike, phrases: str | Sequence[str], *, words: bool = False
    ) -> list[Grounding]:
        """One grounding per phrase, in their order.

        Args:
            image: a path, a Pillow image, an array or a tensor, see `jobs.open_image`.
            phrases: one or several texts.
            words: with a map of every word (`Grounding.word_maps`), of ALBEF, AMC and SelfEQ.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no image that can be read, a phrase without a word, or a system without
                maps of words.
        """
        return self.look(image).ground(phrases, words=words)

    def look(self, image: ImageLike) -> Session:
        """The image, for phrases that are asked about it one after the other: `ground` of the
        session encodes it once. Arguments and errors as of `ground`."""
        pixels, name = open_image(image, self._loaded.config.data.opener)
        prepared = self._questions.prepare(pixels, name)
        return Session(self._loaded, self._questions, self._lock, prepared, self.calibration)

    def ground_many(
        self, pairs: Iterable[tuple[ImageLike, str | Sequence[str]]], *, words: bool = False
    ) -> Iterator[list[Grounding]]:
        """`ground` for every (image, phrases), one after the other as they are asked for."""
        for image, phrases in pairs:
            yield self.ground(image, phrases, words=words)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str | None = None, overrides: Sequence[str] = ()
    ) -> Grounder:
        """`load` under the name that transformers has for it: of a folder that `save_pretrained`
        wrote, or of the id of such a folder on the hub."""
        return cls.load(source, device=device, overrides=overrides)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes weights (safetensors), configuration, tokeniser, calibration if there is one, and
        model card to a folder, which `load` reads back to the same outputs.

        The card has what lies beside the checkpoint: data and code of its training run
        (manifest.json), its rows of every results.json.

        Raises:
            ValueError: a manifest.json or results.json that is damaged; an exported file.
        """
        folder, loaded = Path(folder), self._loaded
        if is_exported(loaded.path):
            raise ValueError(
                f"{loaded.path} is an exported file, which others load as it is; save_pretrained"
                " writes a checkpoint"
            )
        card = model_card(self.about, loaded.path, self.calibration)
        folder.mkdir(parents=True, exist_ok=True)
        model = loaded.parts.model
        config = pretrained.without_places(loaded.config, save_tokenizer(loaded.tokenizer, folder))
        state = SYSTEMS[config.system].published_state(model)
        pretrained.write(folder, state, to_dict(config), card)
        presence.keep(self.calibration, folder)
        return folder

    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """`save_pretrained` to the hub, under OWNER/NAME, which is made if it is new.

        Returns:
            The address of the upload.

        Raises:
            ValueError: no such name. ConnectionError: no network, no login, or refused.
        """
        with tempfile.TemporaryDirectory() as folder:
            return pretrained.push(self.save_pretrained(folder), name, private=private)
