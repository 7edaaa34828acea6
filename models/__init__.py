"""The systems by name. Every one has a folder here, a room; `common` is shared.

What a system gives to the jobs is written down in `models.common.system.System`.
"""

from typing import Any

from groundwork.models.albef.build import AlbefSystem
from groundwork.models.alvg.build import AlvgSystem
from groundwork.models.common.system import System
from groundwork.models.refclip.build import REFCLIP
from groundwork.models.reftr.build import ReftrSystem
from groundwork.models.simrec.build import SIMREC

SYSTEMS: dict[str, System[Any, Any]] = {
    "albef": AlbefSystem(),
    "reftr": ReftrSystem(),
    "refclip": REFCLIP,
    "simrec": SIMREC,
    "alvg": AlvgSystem(),
}
