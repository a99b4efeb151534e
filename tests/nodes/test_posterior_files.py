"""VIPaint Save Posterior and VIPaint Load Posterior as the host calls them."""

from __future__ import annotations

import pytest
import torch


def test_posteriors_are_numbered_listed_and_loaded(pack, paint, tmp_path, monkeypatch):
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
        with pytest.raises(ValueError, match=r"VIPaint Save Posterior, input `filename_prefix`"):
            save.execute(posterior, prefix)
    with pytest.raises(ValueError, match=r"VIPaint Load Posterior, input `file`"):
        load.execute("missing.safetensors")
    (tmp_path / "foreign.safetensors").write_bytes(b"not a posterior")
    with pytest.raises(ValueError, match=r"foreign\.safetensors"):
        load.execute("foreign.safetensors")
