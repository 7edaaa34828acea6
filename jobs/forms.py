"""The two forms of samples by name, as `System.samples` says them."""

from groundwork.jobs.image_text import ImageText
from groundwork.jobs.referring import Referring
from groundwork.jobs.samples import FormOfSamples

FORMS: dict[str, FormOfSamples] = {"image_text": ImageText(), "referring": Referring()}
