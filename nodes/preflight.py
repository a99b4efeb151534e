"""What can be told before a model is loaded: from the links of the graph, and from picture and mask alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from comfy_execution.validation import validate_node_input

from . import validation
from .errors import InputError


def check_source(given: Mapping[str, Any]) -> None:
    """One source of the picture, and all that belongs to it; only whether they are connected counts.

    given: what is connected, by input. Raises InputError.
    """
    if "latent_image" in given and "image" in given:
        raise InputError("image", "either latent_image or image", "both", "Disconnect one of them.")
    if "latent_image" not in given and "image" not in given:
        raise InputError(
            "image", "image, mask and vae, or latent_image with a noise mask", "neither", "Connect one of the two."
        )
    for name in ("mask", "vae") if "image" in given else ():
        if name not in given:
            fix = "Connect the mask of Load Image." if name == "mask" else "Connect the model's VAE."
            raise InputError(name, "image, mask and vae together", f"no {name}", fix)


def check_chosen(given: Mapping[str, Any]) -> None:
    """A part of a fill is kept of a fill. given: what is connected, by input. Raises InputError."""
    if "keep" in given and "around" not in given:
        raise InputError(
            "keep",
            "a fill in `around`, of which a part is kept",
            "none",
            "Connect the latent of VIPaint Choose Fill to `around`.",
        )


def check_links(
    node: type[io.ComfyNode],
    types: Mapping[str, str],
    check: Callable[[Mapping[str, Any]], None] = check_source,
) -> bool | str:
    """The host's `validate_inputs` of nodes that paint.

    types: of what is connected, by input. A node that asks for them checks them itself.
    check: raises InputError for links that do not go together.
    Returns the error's text.
    """
    try:
        for socket in node.define_schema().inputs:
            found, expected = types.get(socket.id), socket.get_io_type()
            if found is not None and not validate_node_input(found, expected):
                raise InputError(socket.id, f"a link of type {expected}", f"one of type {found}", "Connect another.")
        check(types)
    except InputError as error:
        return str(error)
    return True


def check_mask_is_painted(image: Any, mask: Any) -> None:
    """Raises InputError for the empty mask that Load Image gives for a picture without one."""
    if not isinstance(mask, torch.Tensor) or not isinstance(image, torch.Tensor):
        return
    if image.ndim == 4 and tuple(image.shape[1:3]) != (validation.PLACEHOLDER, validation.PLACEHOLDER):
        validation.refuse_placeholder("mask", mask)


def check_pictures(node: type[io.ComfyNode], given: Mapping[str, Any]) -> list[str]:
    """The host's `check_lazy_status` of nodes that paint: before models are loaded, the picture is looked at.

    given: inputs, None where they have not been computed. Returns those that are still wanted. Raises ValueError.
    """
    try:
        check_mask_is_painted(given.get("image"), given.get("mask"))
    except InputError as error:
        raise ValueError(f"{node.define_schema().display_name}, {error}") from error
    return [name for name, value in given.items() if value is None]
