"""From pictures and masks to what is observed."""

from __future__ import annotations

import pytest
import torch

from vipaint_core.imaging.holes import fill_from_nearest


@pytest.fixture
def observe(pack, tiny, tiny_info):
    """The observation of pictures and masks, in inference mode as the host runs nodes."""

    def run(image, mask, **options):
        given = pack.observation.PictureInputs(None, image, mask, tiny.vae)
        with torch.inference_mode():
            return pack.observation.observe(tiny_info, given, **options)

    return run


def test_what_visible_cells_owe_to_the_hole_is_measured(tiny, tiny_info, picture, observe):
    """An encoding with the true content in the hole is explained better than without the measured crosstalk."""
    image, mask = picture
    images, masks = image.expand(2, -1, -1, -1), torch.cat([mask, torch.zeros_like(mask)])
    observation, plain = (observe(images, masks, with_crosstalk=given) for given in (True, False))
    with torch.inference_mode():
        truth = tiny_info.to_model_scale(tiny.vae.encode(image)).clone()
    # Nothing is hidden in the second picture.
    assert (observation.crosstalk_variance[1] == 0).all() and (observation.operator.crosstalk[1] == 0).all()
    first, seam = observation.rows(torch.tensor([0])), slice(2, 3)
    rest = first.residual(truth)[..., seam].square().mean()
    assert rest < 0.8 * plain.rows(torch.tensor([0])).residual(truth)[..., seam].square().mean()
    assert 0.1 * rest < first.crosstalk_variance[..., seam].mean() < 10 * rest
    assert first.crosstalk_variance[..., seam].min() > 10 * first.crosstalk_variance[..., 0].max()


def test_visible_pixels_of_cut_cells_are_evidence(tiny, tiny_info, observe):
    """Another picture with the same visible pixels is as likely as the true one, one with others is not."""
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 36:] = 1
    found = observe(image, mask, with_crosstalk=True)
    assert (found.operator.cut_kind[..., 4] > 0).all() and (found.operator.cut_kind[..., 5:] == 0).all()
    assert (found.cell_weight[..., :4] == 1).all() and (found.cell_weight[..., 4:] == 0).all()
    like, other = image.clone(), image.clone()
    like[:, :, 40:], other[:, :, 32:] = image.flip(1)[:, :, 40:], image.flip(1)[:, :, 32:]
    with torch.inference_mode():
        encoded = [tiny_info.to_model_scale(tiny.vae.encode(picture)).clone() for picture in (image, like, other)]
    true, same, different = (found.residual(latents)[..., 4].norm() for latents in encoded)
    assert same < 1.1 * true and different > 1.2 * true
    mask[:, :, 36:40] = 0
    assert observe(image, mask, with_crosstalk=True).operator.cut_kind is None
    assert observe(image, mask).operator.cut_kind is None


@pytest.mark.parametrize("name", ["right", "strip", "cut"])
def test_visible_cells_are_trusted_as_far_as_hidden_content_moves_them(pack, name):
    """On a trained autoencoder: however little is visible, what is hidden moves latents as much as the observation says."""
    from benchmarks.harness.host import sampling_inputs
    from benchmarks.portraits.prior import held_out, prior
    from toy_prior import CHECKPOINT, pictures

    if not CHECKPOINT.is_file():
        pytest.skip(f"no {CHECKPOINT.name}: train it with `python -m toy_prior.train`")
    model, vae = prior()
    info = sampling_inputs(model, pack.host.text_inputs.zero_conditioning(model), seed=0).info
    images, hole = pictures.render(held_out(4)).movedim(1, -1), pictures.hole(name)
    with torch.inference_mode():
        given = pack.observation.PictureInputs(None, images, hole.float().expand(4, -1, -1), vae)
        found = pack.observation.observe(info, given, with_crosstalk=True).with_crosstalk_as_noise()
        residual = found.residual(info.to_model_scale(vae.encode(images)).cpu())
    if name == "cut":
        # The combinations of channels of which visible pixels tell more than latents' own variance does.
        counted = (found.operator.cut_kind > 0) & (found.operator.gram > found.sigma_y**2)
    else:
        # Cells beside the hole.
        counted = (found.weight > 0) & (found.weight < 0.5)
    squares = (residual.square() * found.weight / found.sigma_y**2)[counted.expand_as(residual)]
    assert 0.2 < float(squares.mean()) < 1.5


def test_padding_is_hidden_where_the_border_is(observe):
    mask = torch.zeros(1, 37, 31)
    mask[:, 20:, 30] = 1
    weight = observe(torch.rand(1, 37, 31, 3), mask).weight[0, 0]
    hidden = torch.zeros(5, 4, dtype=torch.bool)
    hidden[2:, 3] = True
    assert torch.equal(weight == 0, hidden)


def test_observations_are_ordinary_tensors_in_model_scale(tiny, tiny_info, picture, observe):
    """Nodes run in inference mode; autograd refuses its tensors."""
    image, mask = picture
    observation = observe(image, 0 * mask)
    with torch.inference_mode():
        expected = tiny_info.to_model_scale(tiny.vae.encode(image)).cpu().clone()
    assert not observation.y.is_inference() and not observation.weight.is_inference()
    torch.testing.assert_close(observation.y, expected)


@pytest.mark.parametrize("feathering", [0, 9])
def test_the_host_s_padded_picture_is_taken_up_to_its_border(comfyui, feathering):
    """Outpainting: the feathered border is the picture's own, and no grey of the padding reaches the encoder."""
    import nodes

    picture = torch.rand(1, 22, 23, 3) * 0.2
    padded, mask = nodes.ImagePadForOutpaint().expand_image(picture, 5, 3, 0, 7, feathering)
    filled = fill_from_nearest(padded, mask[:, None])
    assert filled.max() < 0.2
    kept = mask <= 0.5
    assert kept[:, 6:22, 8:].all() and torch.equal(filled[kept], padded[kept])
