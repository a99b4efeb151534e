"""Schemas, and the nodes called as the host calls them."""

from __future__ import annotations

import asyncio
import inspect
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F


def test_what_visible_cells_owe_to_the_hole_is_measured(pack, tiny, picture):
    """An encoding with the true content in the hole is explained better than without the measured spill."""
    image, mask = picture
    images, masks = image.expand(2, -1, -1, -1), torch.cat([mask, torch.zeros_like(mask)])
    with torch.inference_mode():
        observation = pack.observe.observe("test", tiny.model, None, images, masks, tiny.vae, leak=True)
        truth = tiny.model.get_model_object("latent_format").process_in(tiny.vae.encode(image)).clone()
    assert (observation.leak[1] == 0).all() and (observation.spill[1] == 0).all()
    first, beside = observation.rows(torch.tensor([0])), slice(2, 3)
    rest = first.residual(truth)[..., beside].square().mean()
    assert rest < 0.8 * replace(first, spill=None).residual(truth)[..., beside].square().mean()
    assert 0.1 * rest < first.leak[..., beside].mean() < 10 * rest
    assert first.leak[..., beside].min() > 10 * first.leak[..., 0].max()


def test_entry_point_lists_all_nodes(pack):
    extension = asyncio.run(pack.root.comfy_entrypoint())
    names = [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())]
    assert len(names) == len(set(names)) == 11
    assert all(name.startswith("VIPaint") for name in names)
    assert not hasattr(pack.root, "NODE_CLASS_MAPPINGS")


def test_schemas_match_execute_and_explain_every_socket(pack):
    for node in pack.NODES:
        schema = node.GET_SCHEMA()
        parameters = inspect.signature(node.execute).parameters
        assert [i.id for i in schema.inputs] == list(parameters), schema.node_id
        for socket in schema.inputs:
            assert socket.tooltip, f"{schema.node_id}.{socket.id}"
            assert not socket.optional or parameters[socket.id].default == getattr(socket, "default", None)
        assert all(output.tooltip for output in schema.outputs), schema.node_id
        assert schema.description and schema.display_name and schema.search_aliases
        assert schema.category == "VIPaint"


def test_latents_have_the_dtype_of_the_hosts_own_samplers(pack, tiny, monkeypatch):
    import comfy.model_management as management

    latents = torch.zeros(1, 16, 8, 6, dtype=torch.float64)
    monkeypatch.setattr(management, "intermediate_dtype", lambda: torch.float16, raising=False)
    assert pack.painting.latent_of("test", tiny.model, latents)["samples"].dtype == torch.float16
    monkeypatch.delattr(management, "intermediate_dtype")
    assert pack.painting.latent_of("test", tiny.model, latents)["samples"].dtype == torch.float32


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_inpaint_draws_different_fills(pack, paint, preset):
    latent, posterior = paint(preset=preset)
    samples = latent["samples"]
    assert samples.shape == (2, 16, 8, 6) and set(latent) == {"samples"}
    assert torch.isfinite(samples).all()
    seen = posterior.observation.seen[0, 0] > 0
    assert seen[:, :3].all() and not seen[:, 3:].any()
    assert (samples[0] - samples[1])[:, ~seen].abs().max() > 0.1
    again, _ = paint(preset=preset)
    assert torch.equal(samples, again["samples"])


@pytest.mark.parametrize("preset", ["balanced", "paper-2"])
def test_fit_then_sample_equals_inpaint(pack, tiny, conditioning, picture, paint, preset, monkeypatch):
    image, mask = picture
    positive, negative = conditioning
    # The paper's preset fits by gradient steps; fewer of them are the same path.
    short = replace(pack.core.PRESETS["paper-2"], steps=3, refine_steps=4)
    monkeypatch.setitem(pack.core.PRESETS, "paper-2", short)
    latent, _ = paint(preset=preset, fills=2)
    with torch.inference_mode():
        (posterior,) = pack.fit.VIPaintFit.execute(
            tiny.model, positive, negative, 0, 1.0, preset, image=image, mask=mask, vae=tiny.vae
        ).result

        def draw(fills, first):
            node = pack.sample.VIPaintSample
            out = node.execute(tiny.model, positive, negative, posterior, 0, 1.0, fills, first).result[0]
            return out["samples"]

        torch.testing.assert_close(draw(2, 0), latent["samples"])
        torch.testing.assert_close(draw(1, 1), latent["samples"][1:], rtol=1e-3, atol=1e-3)
        assert (draw(1, 2) - latent["samples"][1:]).abs().max() > 0.1


def test_hidden_pixels_never_reach_the_fit(paint, picture):
    image, mask = picture
    other = torch.where(mask[..., None] > 0, 1 - image, image)
    first, second = paint(), paint(image=other)
    assert torch.equal(first[0]["samples"], second[0]["samples"])


@pytest.mark.parametrize("node", ["inpaint", "baseline"])
def test_pictures_of_any_size(pack, tiny, conditioning, paint, node):
    """Visible pixels come back bit for bit, and the latent is that of a picture padded on the right and the bottom."""
    picture = torch.rand(2, 37, 31, 3)
    mask = torch.zeros(2, 37, 31)
    mask[0, 10:20, 12:] = 1
    if node == "inpaint":
        latent, _ = paint(image=picture, mask=mask)
    else:
        method = {"method": "blended", "steps": 2}
        inputs = {"image": picture, "mask": mask, "vae": tiny.vae}
        with torch.inference_mode():
            run = pack.baseline.VIPaintBaseline.execute
            (latent,) = run(tiny.model, *conditioning, 0, 1.0, 2, method, **inputs).result
    assert latent["samples"].shape == (4, 16, 5, 4)
    with torch.inference_mode():
        decoded = tiny.vae.decode(latent["samples"])
        (out,) = pack.composite.VIPaintComposite.execute(decoded, picture, mask).result
        by_hand = F.pad(picture.movedim(-1, 1), (0, 1, 0, 3), mode="replicate").movedim(1, -1)
        torch.testing.assert_close(latent["samples"][2:], tiny.vae.encode(by_hand)[1:].expand(2, -1, -1, -1))
    assert decoded.shape[1:3] == (40, 32) and out.shape == (4, 37, 31, 3)
    seen = mask.repeat_interleave(2, 0) == 0
    assert torch.equal(out[seen], picture.repeat_interleave(2, 0)[seen])
    assert (out[0] - picture[0])[mask[0] > 0].abs().max() > 0.01


def test_padding_is_hidden_where_the_border_is(pack, tiny):
    mask = torch.zeros(1, 37, 31)
    mask[:, 20:, 30] = 1
    with torch.inference_mode():
        inputs = torch.rand(1, 37, 31, 3), mask, tiny.vae
        seen = pack.observe.observe("test", tiny.model, None, *inputs).seen[0, 0]
    hidden = torch.zeros(5, 4, dtype=torch.bool)
    hidden[2:, 3] = True
    assert torch.equal(seen == 0, hidden)


def test_latent_image_with_noise_mask(pack, tiny, paint, picture):
    image, mask = picture
    with torch.inference_mode():
        samples = tiny.vae.encode(image)
    latent = {"samples": samples, "noise_mask": mask[:, None]}
    out, _ = paint(latent_image=latent, image=None, mask=None, vae=None)
    assert out["samples"].shape == (2, 16, 8, 6)
    seen = out["samples"][:, :, :, :3] - samples[:, :, :, :3]
    assert seen.abs().max() < 0.2


def test_nothing_to_paint_returns_the_latent(pack, paint, picture, caplog):
    latent, posterior = paint(mask=torch.zeros_like(picture[1]), preset="balanced", fills=3)
    assert len(latent["samples"]) == 3
    assert torch.equal(latent["samples"][0], latent["samples"][2])
    assert posterior.evaluations.forward == posterior.evaluations.backward == 0
    assert "nothing to paint" in caplog.text


def test_batches_are_image_major(paint, picture):
    image = picture[0]
    both = torch.cat([image, 1 - image])
    latent, _ = paint(image=both, fills=2)
    samples = latent["samples"]
    assert len(samples) == 4
    left = samples[:, :, :, :3]
    assert (left[0] - left[1]).abs().max() < (left[0] - left[2]).abs().max()


def test_posterior_files(pack, paint, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vipaint", ([str(tmp_path)], {".safetensors"}))
    _, posterior = paint()
    save, load = pack.posterior_files.VIPaintSavePosterior, pack.posterior_files.VIPaintLoadPosterior
    save.execute(posterior, "cat/portrait")
    save.execute(posterior, "cat/portrait")
    names = folder_paths.get_filename_list("vipaint")
    assert [name.replace("\\", "/") for name in names] == [
        "cat/portrait_00001_.safetensors",
        "cat/portrait_00002_.safetensors",
    ]
    assert names == load.define_schema().inputs[0].options
    (loaded,) = load.execute(names[0]).result
    assert torch.equal(loaded.posterior.mu, posterior.posterior.mu)
    assert loaded.family == "SD3 (FLOW)"
    assert load.fingerprint_inputs(names[0]) != load.fingerprint_inputs(names[1])
    for prefix in ("../outside", "", "/absolute"):
        with pytest.raises(ValueError, match=r"VIPaintSavePosterior, input `filename_prefix`"):
            save.execute(posterior, prefix)
    with pytest.raises(ValueError, match=r"VIPaintLoadPosterior, input `file`"):
        load.execute("missing.safetensors")
    (tmp_path / "foreign.safetensors").write_bytes(b"not a posterior")
    with pytest.raises(ValueError, match=r"foreign\.safetensors"):
        load.execute("foreign.safetensors")


WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


@pytest.mark.parametrize("name", sorted(file.stem for file in WORKFLOWS.glob("*.json") if "_api" not in file.stem))
def test_workflows_fit_the_schemas_and_their_twins(pack, comfyui, name):
    prompt = json.loads((WORKFLOWS / f"{name}_api.json").read_text("utf-8"))
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))
    assert (WORKFLOWS / f"{name}.jpg").is_file()
    schemas = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in pack.NODES}
    for entry in prompt.values():
        if entry["class_type"] in schemas:
            known = {i.id for i in schemas[entry["class_type"]].inputs}
            required = {i.id for i in schemas[entry["class_type"]].inputs if not i.optional}
            assert required <= {name.split(".")[0] for name in entry["inputs"]} <= known
    by_id = {node["id"]: node for node in graph["nodes"]}
    for link, source, out, target, slot, kind in graph["links"]:
        assert link in by_id[source]["outputs"][out]["links"]
        assert by_id[target]["inputs"][slot]["link"] == link
        assert by_id[source]["outputs"][out]["type"] == by_id[target]["inputs"][slot]["type"] == kind
    # The same nodes in the same order, the same connections, the same values.
    ids = dict(zip(prompt, by_id, strict=True))
    origin = {link: [source, out] for link, source, out, *_ in graph["links"]}
    for key, entry in prompt.items():
        node = by_id[ids[key]]
        assert node["type"] == entry["class_type"]
        wired = {i["name"]: origin[i["link"]] for i in node["inputs"] if i["link"] is not None}
        given = {i: [ids[v[0]], v[1]] for i, v in entry["inputs"].items() if isinstance(v, list)}
        # The editor's own values: what becomes of a seed after a run, and the button that uploads.
        values = [value for value in node["widgets_values"] if value not in ("fixed", "image")]
        assert wired == given and values == [v for v in entry["inputs"].values() if not isinstance(v, list)]


@pytest.mark.parametrize(
    ("config", "kind", "tokens", "pooled"),
    [
        ({"model_channels": 320, "context_dim": 768, "adm_in_channels": None}, "BaseModel", (77, 768), None),
        ({"model_channels": 320, "context_dim": 2048, "adm_in_channels": 2816}, "SDXL", (77, 2048), 1280),
        ({"model_channels": 384, "context_dim": 1280, "adm_in_channels": 2560}, "SDXLRefiner", (77, 1280), 1280),
        ({"context_in_dim": 4096, "vec_in_dim": 768}, "Flux", (1, 4096), 768),
        ({"cap_feat_dim": 2304}, "Lumina2", (1, 2304), None),
        ({"cond_seq_dim": 2048}, "AuraFlow", (1, 2048), None),
    ],
)
def test_unconditional_shapes_of_families(pack, config, kind, tokens, pooled):
    import comfy.model_base

    model = getattr(comfy.model_base, kind).__new__(getattr(comfy.model_base, kind))
    torch.nn.Module.__init__(model)
    model.model_config = SimpleNamespace(unet_config=config)
    (entry,) = pack.unconditional.unconditional(SimpleNamespace(model=model))
    assert entry[0].shape == (1, *tokens) and not entry[0].any()
    assert entry[1].get("pooled_output", torch.zeros(1, 0)).shape[1] == (pooled or 0)


def test_unconditional_of_a_loaded_model_paints(pack, tiny, paint):
    (empty,) = pack.unconditional.VIPaintUnconditional.execute(tiny.model).result
    assert empty[0][0].shape == (1, 1, 64) and empty[0][1]["pooled_output"].shape == (1, 64)
    latent, _ = paint(positive=empty, negative=empty)
    assert torch.isfinite(latent["samples"]).all()


def test_unconditional_of_an_unknown_family(pack):
    model = SimpleNamespace(model_config=SimpleNamespace(unet_config={}), diffusion_model=torch.nn.Identity())
    with pytest.raises(ValueError, match=r"VIPaintUnconditional, input `model`.*empty prompt"):
        pack.unconditional.unconditional(SimpleNamespace(model=model))
