"""Numbers and choices that come by a link, which the host does not check."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from odd_inputs import (
    AS_USUAL,
    BASELINE,
    CELLS,
    FIT,
    INPAINT,
    SAMPLE,
    SAMPLER,
    SIGMAS,
    check,
    given,
    kept,
    of_size,
    prompted,
    rows,
    same_as,
    unlike,
)

NUMPY_NUMBERS = (
    *(np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64),
    *(np.float16, np.float32, np.float64, np.longdouble),
)


def encoded(change):
    """Another latent beside the usual settings."""
    return lambda usual: {"latent_image": {"samples": change(usual.latent["samples"])}}


ROWS = [
    *rows(
        INPAINT,
        [
            ("fills-0", {"fills": 0}, "fills; from 1 to 64; found 0"),
            ("fills-negative", {"fills": -1}, "fills; found -1"),
            ("fills-many", {"fills": 65}, "fills; found 65"),
            ("fills-half", {"fills": 1.5}, "fills; a whole number; 1.5"),
            ("fills-text", {"fills": "2"}, "fills; '2'"),
            ("fills-none", {"fills": None}, "fills; None"),
            ("fills-12", {"fills": 12}, of_size(12, *CELLS)),
            ("seed-negative", {"seed": -1}, "seed; from 0; found -1"),
            ("seed-largest", {"seed": 2**64 - 1}, unlike({})),
            ("seed-too-large", {"seed": 2**64}, "seed; found 18446744073709551616"),
            ("fills-true", {"fills": True}, "fills; a whole number; True"),
            ("fills-numpy-true", {"fills": np.bool_(True)}, "fills; a whole number; True"),
            ("fills-numpy-text", {"fills": np.str_("3")}, "fills; '3'"),
            ("fills-array", {"fills": np.array(3)}, "fills; array(3)"),
            *((f"fills-{kind.__name__}", {"fills": kind(3)}, of_size(3, *CELLS)) for kind in NUMPY_NUMBERS),
            ("fills-float", {"fills": 3.0}, of_size(3, *CELLS)),
            ("fills-numpy-half", {"fills": np.float32(1.5)}, "fills; a whole number; 1.5"),
            ("seed-float", {"seed": 1.0}, same_as({"seed": 1})),
            ("seed-float-half", {"seed": 1.5}, "seed; a whole number; 1.5"),
            ("seed-numpy", {"seed": np.uint64(2**64 - 1)}, same_as({"seed": 2**64 - 1})),
            ("cfg-true", {"cfg": True}, "cfg; a number; True"),
            *((f"cfg-{kind.__name__}", {"cfg": kind(4)}, same_as({"cfg": 4.0})) for kind in NUMPY_NUMBERS),
            ("cfg-numpy-nan", {"cfg": np.float32("nan")}, "cfg; a number; nan"),
            ("seed-nan", {"seed": torch.nan}, "seed; nan"),
            ("cfg-0", {"cfg": 0}, AS_USUAL),
            ("cfg-0-is-the-negative-prompt", prompted(lambda t, s: [[t + 1, s]]), unlike({})),
            ("cfg-negative", {"cfg": -1.0}, "cfg; from 0.0 to 100.0; -1.0"),
            ("cfg-nan", {"cfg": torch.nan}, "cfg; a number; nan"),
            ("cfg-infinity", {"cfg": torch.inf}, "cfg; inf"),
            ("cfg-text", {"cfg": "4"}, "cfg; '4'"),
            ("cfg-tensor", {"cfg": torch.tensor(4.0)}, "cfg; tensor(4.)"),
            ("cfg-100", {"cfg": 100.0}, of_size(1, *CELLS)),
            ("preset-unknown", {"preset": "best"}, "preset; balanced; 'best'"),
            ("preset-empty", {"preset": ""}, "preset; ''"),
            ("preset-none", {"preset": None}, "preset; None"),
            ("preset-list", {"preset": ["fast"]}, "preset; ['fast']"),
            ("strength-negative", {"strength": -0.1}, "strength; from 0.0 to 1.0; -0.1"),
            ("strength-nan", {"strength": torch.nan}, "strength; nan"),
            ("strength-text", {"strength": "0.5"}, "strength; '0.5'"),
            ("strength-1", {"strength": 1}, AS_USUAL),
            ("strength-nearly-0", {"strength": 1e-6}, of_size(1, *CELLS)),
            ("strength-nearly-1", {"strength": 1 - 1e-9}, of_size(1, *CELLS)),
            ("content-unknown", {"content": "grey"}, "content; surroundings; 'grey'"),
            ("preset-upper-case", {"preset": "FAST"}, "preset; 'FAST'"),
        ],
    ),
    *rows(
        FIT,
        [
            ("preset-unknown", {"preset": "best"}, "preset; balanced"),
            ("seed-negative", {"seed": -5}, "seed; -5"),
            ("cfg-nan", {"cfg": torch.nan}, "cfg; nan"),
        ],
    ),
    *rows(
        SAMPLE,
        [
            ("fills-0", {"fills": 0}, "fills; from 1 to 64"),
            ("seed-negative", {"seed": -5}, "seed; -5"),
            ("first-negative", {"first_fill": -1}, "first_fill; from 0; -1"),
            ("first-float", {"first_fill": 0.5}, "first_fill; 0.5"),
            ("first-huge", {"first_fill": 10**20}, "first_fill; 1000000"),
            ("first-last", {"first_fill": 1_000_000}, unlike({})),
        ],
    ),
    *rows(
        SAMPLER,
        [
            ("preset-with-a-fit", {"preset": "paper-2"}, "preset; balanced; 'paper-2'"),
            ("gradients-unknown", {"gradients": "none"}, "gradients; 'none'"),
        ],
    ),
    *rows(
        SIGMAS,
        [
            ("strength-0", {"strength": 0.0}, "strength; from 0.01 to 1.0; 0.0"),
            ("stop_at-0", {"stop_at": 0.0}, "stop_at; from 0.01 to 1.0; 0.0"),
            ("stop_at-nan", {"stop_at": torch.nan}, "stop_at; nan"),
            ("stop-before-the-start", {"strength": 0.1, "stop_at": 0.5}, "stop_at; Raise stop_at or strength"),
            ("latent-nan", encoded(lambda t: t * torch.nan), "latent_image; NaN"),
            ("latent-of-another-family", encoded(lambda t: t[:, :4]), "latent_image; 16 channels"),
            ("latent-none", {"latent_image": None}, "latent_image"),
        ],
    ),
    *rows(
        BASELINE,
        [
            ("fills-0", {"fills": 0}, "fills; from 1 to 64"),
            ("seed-negative", {"seed": -5}, "seed; -5"),
            ("cfg-infinity", {"cfg": torch.inf}, "cfg; inf"),
            ("method-unknown", {"method": {"method": "best"}}, "method; ding; 'best'"),
            ("method-missing", {"method": {}}, "method; None"),
            ("method-none", {"method": None}, "method; None"),
            ("method-text", {"method": "ding"}, "method; 'ding'"),
            ("method-list", {"method": {"method": ["ding"]}}, "method; ['ding']"),
            ("setting-of-another", {"method": {"method": "ding", "jumps": 3}}, "method; jumps"),
            ("setting-0", {"method": {"method": "ding", "steps": 0}}, "method; steps; 0"),
            ("setting-huge", {"method": {"method": "ding", "steps": 10**9}}, "method; steps"),
            ("setting-numpy", {"method": {"method": "ding", "steps": np.int32(2)}}, of_size(1, *CELLS)),
            ("setting-true", {"method": {"method": "ding", "steps": True}}, "method; steps; True"),
            ("setting-float", {"method": {"method": "ding", "steps": 2.5}}, "method; steps; 2.5"),
            ("setting-text", {"method": {"method": "ding", "steps": "2"}}, "method; steps; '2'"),
            ("setting-nan", {"method": {"method": "dps", "steps": 2, "scale": torch.nan}}, "method; scale; nan"),
            ("image-nan", given("image", lambda t: t * torch.nan), "image; NaN"),
            ("mask-zeros", given("mask", torch.zeros_like), kept),
            ("mask-ones", given("mask", torch.ones_like), of_size(1, *CELLS)),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_widgets(usual, node, changes, expected):
    check(usual, node, changes, expected)
