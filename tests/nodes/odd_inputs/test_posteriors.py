"""Odd posteriors, and files that hold none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from odd_inputs import (
    CELLS,
    CHANNELS,
    LOAD,
    SAMPLE,
    SAVE,
    as_fitted,
    check,
    discrete,
    forged,
    model,
    of_size,
    posterior,
    rows,
    saved,
    start,
    stored,
)


def of_version(number: bytes) -> Callable[[bytes], bytes]:
    """A posterior's file with another number of its format."""
    return lambda whole: re.sub(rb'"version":"\d+"', b'"version":"' + number + b'"', whole)


KEYPOINTS = (0.5, 1.0, 30.0)
ENDLESS = {
    "name": "",
    "description": "",
    "fit": {"keypoints": [1.0], "steps": 10**12, "v_range": None},
    "schedule": {},
    "sampler": {},
}
ROWS = [
    *rows(
        SAMPLE,
        [
            ("none", {"posterior": None}, "posterior; NoneType; VIPaint Fit Posterior"),
            ("path", {"posterior": "cat.safetensors"}, "posterior; str"),
            ("latent", lambda usual: {"posterior": usual.latent}, "posterior; dict"),
            ("bare", posterior(lambda usual, fitted: fitted.posterior), "posterior; HierarchicalPosterior"),
            (
                "family",
                posterior(lambda usual, f: replace(f, family="SDXL (EPS)")),
                "posterior; SD3 (FLOW); SDXL (EPS)",
            ),
            ("no-family", posterior(lambda usual, f: replace(f, family="")), "posterior; unnamed"),
            ("4-channels", start(KEYPOINTS, (1, 4, 4, 3)), "posterior; 16 latent channels; 4 latent channels"),
            ("other-size", start(KEYPOINTS, (1, CHANNELS, 5, 7)), of_size(1, 5, 7)),
            ("larger-than-the-model", start(KEYPOINTS, (1, CHANNELS, 2, 50)), "model; pictures of this size"),
            ("batch-of-3", start(KEYPOINTS, (3, CHANNELS, 2, 2)), of_size(3, 2, 2)),
            ("1-keypoint", start((2.0,)), of_size(1, *CELLS)),
            ("40-keypoints", start(tuple(0.1 * 1.2**k for k in range(40))), of_size(1, *CELLS)),
            ("keypoint-far-up", start((1e-3, 1e5)), of_size(1, *CELLS)),
            ("double", start(KEYPOINTS, dtype=torch.float64), of_size(1, *CELLS)),
            (
                "levels-above",
                lambda usual: {**model(discrete)(usual), **start(KEYPOINTS)(usual)},
                "posterior; 14.6; 30",
            ),
            (
                "nan",
                posterior(lambda usual, f: replace(f, posterior=replace(f.posterior, mu=f.posterior.mu * torch.nan))),
                "posterior; NaN",
            ),
        ],
    ),
    *rows(
        SAVE,
        [
            ("none", {"posterior": None}, "posterior; NoneType"),
            ("name", {"filename_prefix": "odd/Größe 1"}, saved("odd/Größe 1_00001_.safetensors")),
            ("name-empty", {"filename_prefix": ""}, "filename_prefix; ''"),
            ("name-blank", {"filename_prefix": "  "}, "filename_prefix; '  '"),
            ("name-dot", {"filename_prefix": "."}, "filename_prefix; '.'"),
            ("name-outside", {"filename_prefix": "../odd"}, "filename_prefix; '../odd'"),
            ("name-around", {"filename_prefix": "a/../../odd"}, "filename_prefix; inside models/vipaint"),
            ("name-absolute", {"filename_prefix": "/tmp/odd"}, "filename_prefix; '/tmp/odd'"),
            ("name-of-folder", {"filename_prefix": "odd/"}, "filename_prefix; 'odd/'"),
            ("name-with-null", {"filename_prefix": "odd\0"}, "filename_prefix"),
            ("name-with-lines", {"filename_prefix": "odd\nname"}, "filename_prefix"),
            ("name-long", {"filename_prefix": "o" * 300}, "filename_prefix; shorter"),
            ("name-none", {"filename_prefix": None}, "filename_prefix; None"),
            ("name-number", {"filename_prefix": 7}, "filename_prefix; 7"),
            ("name-of-a-file", {"filename_prefix": "usual_00001_.safetensors/odd"}, "filename_prefix; can be written"),
        ],
    ),
    *rows(
        LOAD,
        [
            ("usual", {}, as_fitted),
            ("missing", {"file": "missing.safetensors"}, "file; 'missing.safetensors'; Refresh"),
            ("empty-name", {"file": ""}, "file; ''"),
            ("none", {"file": None}, "file; None"),
            ("outside", {"file": "../../etc/passwd"}, "file; '../../etc/passwd'"),
            ("empty-file", stored(lambda whole: b""), "file; odd.safetensors"),
            ("truncated", stored(lambda whole: whole[:-100]), "file; odd.safetensors; cannot be read"),
            ("half", stored(lambda whole: whole[: len(whole) // 2]), "file; odd.safetensors"),
            ("prolonged", stored(lambda whole: whole + b"\0" * 8), "file; odd.safetensors"),
            ("one-bit", stored(lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])), "file; damaged or was altered"),
            ("huge-header", stored(lambda whole: (2**62).to_bytes(8, "little") + whole[8:]), "file; cannot be read"),
            ("text", stored(lambda whole: b"a posterior"), "file; cannot be read"),
            ("pickle", stored(lambda whole: b"\x80\x04\x95cos\nsystem\n"), "file; cannot be read"),
            ("old", stored(of_version(b"1")), "file; of version 1"),
            ("new", stored(of_version(b"9")), "file; update VIPaint"),
            ("reversed-keypoints", forged(levels=[30.0, 1.0]), "file; s_1 < ... < s_K"),
            ("more-keypoints", forged(levels=[1.0, 2.0, 3.0]), "file; mu of shape"),
            ("endless-steps", forged(preset=ENDLESS), "file; steps to be a whole number"),
        ],
    ),
]


@pytest.mark.parametrize(("node", "changes", "expected"), ROWS)
def test_posteriors_and_files(usual, node, changes, expected):
    check(usual, node, changes, expected)
