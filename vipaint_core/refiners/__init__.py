"""Ways down from one noise level to the next, by name. A new one is a module with a `REFINER`, and a line here."""

from __future__ import annotations

from . import closed_form, dps, moment_matching, pigdm
from .common import Refiner

REFINERS: dict[str, Refiner] = {
    "closed_form": closed_form.REFINER,
    "pigdm": pigdm.REFINER,
    "moment_matching": moment_matching.REFINER,
    "dps": dps.REFINER,
}
