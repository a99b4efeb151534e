"""Weights that stay where they are while backward needs them."""

from __future__ import annotations

import contextlib
import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file


def test_streamed_weights_are_not_differentiated(pack, tiny, paint, monkeypatch, messages):
    """Whatever was asked for: the host overwrites them before backward reads them."""
    expected = paint(preset="balanced", gradients="jacobian_free")[0]["samples"]
    elsewhere = torch.nn.Linear(2, 2, device="meta")
    assert pack.host.loading.is_elsewhere(elsewhere, tiny.model)
    monkeypatch.setattr(pack.host.loading, "is_elsewhere", lambda *_: True)
    found = paint(preset="balanced", gradients="full")[0]["samples"]
    assert torch.equal(found, expected)
    assert "gradients jacobian_free, 1 at once: the weights of SD3 are streamed" in messages()[-1]


def test_streamed_control_networks_are_found(pack, tiny):
    """The host loads them beside the model, as it sees fit."""
    cpu = torch.device("cpu")
    for device, dynamic, found in (("cpu", False, False), ("cpu", True, True), ("meta", False, True)):
        network = torch.nn.Linear(2, 2, device=device)
        control = SimpleNamespace(model=network, load_device=cpu, is_dynamic=lambda dynamic=dynamic: dynamic)
        with (
            pytest.raises(pack.host.loading.StreamedWeightsError, match="Linear") if found else contextlib.nullcontext()
        ):
            pack.host.loading.check_weights([tiny.model, control])


def streaming(load_model, path, monkeypatch):
    """A patcher that says of itself that it streams, and the network with weights that stay that the host has for it."""
    import comfy.memory_management
    import comfy.sd
    from comfy.model_patcher import ModelPatcher

    model, tensors = load_model(path), load_file(path)
    with monkeypatch.context() as patch, torch.inference_mode():
        # As on a GPU, where linear layers get their weights as the file has them.
        patch.setattr(comfy.memory_management, "aimdo_enabled", True)
        other = comfy.sd.load_state_dict_guess_config(tensors, output_vae=False, output_clip=False)[0]

    class Streaming(ModelPatcher):
        def is_dynamic(self):
            return True

        def get_non_dynamic_delegate(self):
            return self.clone(disable_dynamic=True, model_override=other.get_clone_model_override())

    return Streaming(model.model, model.load_device, model.offload_device), other.model


def test_weights_that_stay_have_the_model_s_precision(paint, tiny, load_model, tmp_path, monkeypatch):
    save_file({name: tensor.half() for name, tensor in load_file(tiny.path).items()}, tmp_path / "half.safetensors")
    expected = paint(model=load_model(tmp_path / "half.safetensors"), preset="balanced", gradients="full")
    model, network = streaming(load_model, tmp_path / "half.safetensors", monkeypatch)
    assert {weight.dtype for weight in network.parameters()} > {torch.float16}
    found = paint(model=model, preset="balanced", gradients="full")
    assert torch.equal(found[0]["samples"], expected[0]["samples"])


def test_weights_that_stay_are_the_host_s_to_free(paint, tiny, load_model, monkeypatch):
    """Loaded weights belong to the patcher that the host has last seen, or to its parent when that has ended."""
    from comfy.model_management import current_loaded_models, unload_all_models

    model, network = streaming(load_model, tiny.path, monkeypatch)
    # As extensions do.
    model.model_options["patcher"] = model
    expected = paint(preset="balanced", gradients="full")[0]["samples"]
    for _ in range(3):
        assert torch.equal(paint(model=model, preset="balanced", gradients="full")[0]["samples"], expected)
        # Patchers in a circle would end together, parent and all.
        gc.collect()
        (entry,) = [entry for entry in current_loaded_models if entry.real_model() is network]
        assert entry.model is not None and entry.model.model is network
    unload_all_models()
    ended = [weakref.ref(entry) for entry in (model, network)]
    del model, network, entry
    gc.collect()
    assert [end() for end in ended] == [None, None]
