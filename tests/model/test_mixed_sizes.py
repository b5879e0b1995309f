"""Images of different sizes in one batch: each is answered as it is alone, and its gradients are the same."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import reparameterize_model

from .examples import tiny
from .test_reference import make

SHAPES = [(16, 16), (4, 4), (1, 1), (9, 40), (40, 9), (23, 17), (8, 8), (3, 30)]


def padded(images, filling=float("nan")):
    """Puts images of any sizes into one tensor, with something in the padding that must not be looked at."""
    rows, columns = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = torch.full((len(images), images[0].shape[0], rows, columns), filling, dtype=images[0].dtype)
    for place, image in enumerate(images):
        batch[place, :, : image.shape[1], : image.shape[2]] = image
    return batch, torch.tensor([image.shape[1:] for image in images])


def images_of(shapes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, *shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def check(model, shapes, rtol=1e-8, atol=1e-9):
    """Values, and gradients to images and weights, of a weighted sum of the logits."""
    images = images_of(shapes, model.head.weight.dtype)
    leaves = [*images, *model.parameters()]
    results = []
    for forward in (lambda: model.forward_padded(*padded(images)), lambda: torch.cat([model(x[None]) for x in images])):
        logits = forward()
        weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
        results.append((logits, *torch.autograd.grad((logits * weights).sum(), leaves)))
    names = ["logits", *(f"image {shape}" for shape in shapes), *(name for name, _ in model.named_parameters())]
    for name, together, alone in zip(names, *results, strict=True):
        torch.testing.assert_close(together, alone, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def test_each_image_of_a_padded_batch_is_answered_as_alone():
    check(make(), SHAPES)


@pytest.mark.parametrize("local", ["conv", "attention", "none"])
@pytest.mark.parametrize("upper", ["conv", "attention", "none"])
def test_every_mixer_leaves_the_padding_out(local, upper):
    check(make(mixer=local, global_mixer=upper, layer_scale=0.1), [(8, 24), (10, 33), (20, 3)])


@pytest.mark.parametrize(
    "fields",
    [{"global_pool": "avg"}, {"token_start": "mean"}, {"stem_order": "behind", "stem_convs": 2}, {"window": 3}],
)
def test_other_networks_leave_the_padding_out(fields):
    check(make(**fields), SHAPES[:5])


def test_in_single_precision_they_are_equal_within_rounding():
    check(make(noise=0.1).float(), SHAPES, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4),
    stride=st.sampled_from([2, 4, 8]),
    window=st.integers(1, 4),
    local_layers=st.integers(1, 2),
    class_layers=st.integers(1, 2),
    mixer=st.sampled_from(["conv", "attention", "none"]),
    stem_order=st.sampled_from(["before", "behind"]),
    token_start=st.sampled_from(["learned", "mean"]),
)
def test_any_shapes_in_any_geometry_are_answered_as_alone(shapes, **fields):
    check(make(**fields), shapes)


def test_without_fused_attention_and_with_fewer_layers_to_fold_it_is_the_same():
    model = tiny().double()
    images = images_of(SHAPES)
    batch, sizes = padded(images)
    expected = model.forward_padded(batch, sizes)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    torch.testing.assert_close(model.forward_padded(batch, sizes), expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(reparameterize_model(model).forward_padded(batch, sizes), expected, rtol=1e-8, atol=1e-9)


def test_images_of_one_size_are_answered_as_an_ordinary_batch():
    model, images = tiny(), torch.stack([x.detach() for x in images_of([(10, 33)] * 3, torch.float32)])
    sizes = torch.tensor([[10, 33]] * 3)
    torch.testing.assert_close(model.forward_padded(images, sizes), model(images), rtol=1e-5, atol=1e-6)


def test_maps_are_zero_beyond_each_image_s_own_grid():
    model, images = tiny(), [x.detach() for x in images_of(SHAPES, torch.float32)]
    batch, sizes = padded(images)
    maps = model.forward_features(batch, sizes=sizes)
    for image, found in zip(images, maps, strict=True):
        own = model.forward_features(image[None])[0]
        torch.testing.assert_close(found[:, : own.shape[1], : own.shape[2]], own, rtol=1e-4, atol=1e-5)
        assert found[:, own.shape[1] :].abs().sum() == 0 == found[:, :, own.shape[2] :].abs().sum()


def test_logits_of_every_window_are_those_of_each_image_alone_and_zero_beyond():
    model, images = tiny(global_pool=""), [x.detach() for x in images_of(SHAPES, torch.float32)]
    for image, found in zip(images, model.forward_padded(*padded(images)), strict=True):
        own = model(image[None])[0]
        torch.testing.assert_close(found[:, : own.shape[1], : own.shape[2]], own, rtol=1e-4, atol=1e-5)
        assert found[:, own.shape[1] :].abs().sum() == 0 == found[:, :, own.shape[2] :].abs().sum()


def test_a_network_pruned_to_patches_gives_zeros_beyond_them():
    model = tiny()
    model.prune_intermediate_layers([0], prune_norm=False)
    images = [x.detach() for x in images_of(SHAPES, torch.float32)]
    batch, sizes = padded(images)
    maps = model.forward_features(batch, sizes=sizes)
    for image, found in zip(images, maps, strict=True):
        own = model.forward_features(image[None])[0]
        torch.testing.assert_close(found[:, : own.shape[1], : own.shape[2]], own, rtol=1e-4, atol=1e-5)
        assert found[:, own.shape[1] :].abs().sum() == 0 == found[:, :, own.shape[2] :].abs().sum()


def test_what_is_collected_of_a_padded_batch_attends_to_no_padding():
    model, images = tiny(mixer="attention"), [x.detach() for x in images_of([(16, 16), (7, 5)], torch.float32)]
    batch, sizes = padded(images)
    collect = {}
    features = model.forward_features(batch, collect, sizes)
    model.forward_head(features, collect=collect, sizes=sizes)
    patches = collect["local.0.attention"][1, 0, :, 0, 1:]  # the small image's first window: 2 x 2 patches are its own
    assert (patches > 0).all()
    assert collect["local.0.attention"][1, 1:, :, 0, 1:].abs().sum() == 0  # windows in the padding: themselves alone
    for name in ("local.0.mixer.attention", "global.0.attention", "class.0.attention"):
        torch.testing.assert_close(collect[name][1, :, 0, 0], torch.ones(2))


def test_a_training_stem_and_wrong_sizes_are_refused():
    model, batch = tiny(), torch.zeros(2, 3, 16, 24)
    for sizes in ([[16, 24]], [[16, 24], [17, 24]], [[16, 24], [16, 25]], [[16, 0], [16, 24]]):
        with pytest.raises(ValueError, match="must be a height and width within those of images"):
            model.forward_padded(batch, torch.tensor(sizes))
    with pytest.raises(ValueError, match="the stem is in training mode"):
        model.train().forward_padded(batch, torch.tensor([[16, 24], [9, 9]]))
    model.stem.eval()
    assert model.forward_padded(batch, torch.tensor([[16, 24], [9, 9]])).requires_grad


def test_the_family_answers_mixed_shapes():
    model = timm.create_model("stt_nano", num_classes=5, local_layers=1, global_layers=1).eval()
    images = [x.detach() for x in images_of([(32, 32), (40, 31), (33, 64)], torch.float32)]
    together = model.forward_padded(*padded(images, 7.0))
    torch.testing.assert_close(together, torch.cat([model(x[None]) for x in images]), rtol=1e-4, atol=1e-5)
