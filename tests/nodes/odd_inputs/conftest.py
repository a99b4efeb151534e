"""Usual inputs of every node, small, with presets of few steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from odd_inputs import HEIGHT, WIDTH


@pytest.fixture(scope="session")
def posteriors_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vipaint")


@pytest.fixture(autouse=True)
def small(pack, short_presets, posteriors_folder, monkeypatch) -> None:
    use_folder(monkeypatch, posteriors_folder)


def use_folder(patch, folder) -> None:
    """The host's folder of posteriors is this one."""
    import folder_paths

    patch.setitem(folder_paths.folder_names_and_paths, "vipaint", ([str(folder)], {".safetensors"}))


@pytest.fixture(scope="session")
def usual(pack, tiny, shorten_presets, posteriors_folder) -> SimpleNamespace:
    """Usual inputs, `run(node, **changes)` in inference mode as the host runs nodes, and the first result.

    names: of the nodes in the menu, by their ids.
    """
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(1, HEIGHT, WIDTH, 3, generator=generator)
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[:, :, WIDTH // 2 :] = 1
    fills = torch.rand(2, HEIGHT, WIDTH, 3, generator=generator)
    nodes = {node.GET_SCHEMA().node_id: node for node in pack.NODES}
    names = {name: node.GET_SCHEMA().display_name for name, node in nodes.items()}
    inputs: dict[str, dict[str, Any]] = {"VIPaintUnconditional": {"model": tiny.model}}

    def run(node: str, **changes: Any) -> tuple[Any, ...]:
        with torch.inference_mode():
            output = nodes[node].execute(**{**inputs[node], **changes})
        return output.result if output.result is not None else (output.ui,)

    (prompt,) = run("VIPaintUnconditional")
    with torch.inference_mode():
        latent = {"samples": tiny.vae.encode(image), "noise_mask": mask[:, None]}
    model = {"model": tiny.model, "positive": prompt, "negative": prompt, "seed": 0, "cfg": 1.0}
    picture = {"image": image, "mask": mask, "vae": tiny.vae}
    once = {"fills": 1, "steps": 4, "attempts": 1, "noise": 0.0}
    cut = {"width": 16, "height": 16, "context": 2.0, "enlarge": 1.0}
    inputs |= {
        "VIPaintInpaint": {**model, "fills": 1, "preset": "fast", **picture},
        "VIPaintFit": {**model, "preset": "fast", **picture},
        "VIPaintBaseline": {**model, "fills": 1, "method": {"method": "ding", "steps": 2}, **picture},
        "VIPaintRestore": {**model, **once, "degradation": {"degradation": "none"}, **picture},
        "VIPaintComposite": {"fills": fills, "original": image, "mask": mask},
        "VIPaintMask": {"mask": mask},
        "VIPaintSampler": {"preset": "fast"},
        "VIPaintSigmas": {"model": tiny.model, "latent_image": latent, "preset": "fast"},
        "VIPaintCrop": {"image": image, "mask": mask, **cut},
        "VIPaintUncertainty": {"images": fills},
    }
    with pytest.MonkeyPatch.context() as patch:
        shorten_presets(patch)
        use_folder(patch, posteriors_folder)
        (fitted,) = run("VIPaintFit")
        inputs["VIPaintSample"] = {**model, "posterior": fitted, "fills": 1}
        inputs["VIPaintSavePosterior"] = {"posterior": fitted, "filename_prefix": "usual"}
        run("VIPaintSavePosterior")
        inputs["VIPaintLoadPosterior"] = {"file": "usual_00001_.safetensors"}
        before = run("VIPaintInpaint")[0]["samples"]
    return SimpleNamespace(
        pack=pack,
        tiny=tiny,
        run=run,
        names=names,
        image=image,
        mask=mask,
        fills=fills,
        prompt=prompt,
        latent=latent,
        fitted=fitted,
        folder=posteriors_folder,
        before=before,
    )
