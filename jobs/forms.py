"""The two forms of samples by name, as `System.samples` says them."""

from groundwork.jobs.image_text import ImageText
from groundwork.jobs.referring import Referring
from groundwork.jobs.samples import SampleForm

FORMS: dict[str, SampleForm] = {"image_text": ImageText(), "referring": Referring()}
