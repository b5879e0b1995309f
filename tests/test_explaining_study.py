"""The measures of explanations say what they are meant to say."""

import pytest
import torch

from studies import explaining
from studies.explaining_rivals import contestants
from tests.model.examples import tiny


def test_the_grid_game_counts_what_lies_in_the_right_quarter():
    images, targets = torch.randn(40, 3, 8, 8), torch.arange(40) % 5
    grids, classes = explaining.composites(images, targets, 6)
    assert grids.shape == (6, 3, 16, 16) and all(len(set(row.tolist())) == 4 for row in classes)
    places = iter(range(4))
    perfect = torch.zeros(4, 4, 4)
    for quarter, (row, column) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2))):
        perfect[quarter, row : row + 2, column : column + 2] = 2.0
    perfect[:, 3, 0] -= 1.0  # what speaks against a class counts nothing
    shares = explaining.grid_game(lambda x, c: perfect[next(places)].expand(len(x), 4, 4), grids, classes)
    expected = (1 + 1 + 1 + 1) / 4
    assert shares.tolist() == pytest.approx([expected] * 6)
    even = explaining.grid_game(lambda x, c: torch.ones(len(x), 4, 4), grids, classes)
    nothing = explaining.grid_game(lambda x, c: -torch.ones(len(x), 4, 4), grids, classes)
    assert even.tolist() == nothing.tolist() == [0.25] * 6
    assert torch.equal(grids[0, :, :8, 8:], next(i for i in images if torch.equal(i, grids[0, :, :8, 8:])))


class Bright(torch.nn.Module):
    """Answers class 1 the more surely the brighter the first patch is."""

    def forward(self, images):
        light = images[:, :, :4, :4].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(light), 8 * light - 4], 1)


@pytest.mark.parametrize("fill", ["mean", "fill", "ROAD"])
def test_removal_is_large_for_the_true_map_and_small_for_its_reverse(fill):
    images, target = torch.zeros(3, 3, 16, 16), torch.ones(3, dtype=torch.long)
    images[:, :, :4, :4] = 1.0
    true = torch.zeros(3, 4, 4)
    true[:, 0, 0] = 1.0
    right, wrong, tied = (
        explaining.removal(Bright(), images, target, maps, fill) for maps in (true, -true, torch.zeros(3, 4, 4))
    )
    assert (right > 0.4).all() and torch.allclose(wrong, -right, atol=0.1) and (tied.abs() < right).all()


def test_imputation_fills_only_what_was_taken_away_and_from_its_neighbours():
    images, mask = torch.full((2, 3, 8, 8), 2.0), torch.zeros(2, 1, 8, 8)
    mask[0, :, 2:5, 2:5] = 1.0
    mask[1] = 1.0
    filled = explaining.imputed(images, mask)
    assert torch.equal(filled[0][:, mask[0, 0] == 0], images[0][:, mask[0, 0] == 0]) and not filled[1].any()
    assert (filled[0] - 2).abs().max() < 0.1  # a little noise


def test_salience_counts_pairs_of_groups_that_are_in_order():
    images, target = torch.zeros(2, 3, 16, 16), torch.ones(2, dtype=torch.long)
    images[:, :, :4, :4] = 1.0
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, 0] = maps[1, 3, 3] = 1.0  # the truth, and what is not
    found = explaining.salience(Bright(), images, target, maps, groups=16)
    assert found[0] == pytest.approx(1.0)
    # of the wrong map every pair with its one group has a difference of 1; only the pair with the true patch is wrong
    assert found[1] == pytest.approx((14 - 1) / 15)


def test_a_small_picture_lies_in_its_window_and_its_share_is_counted():
    images = torch.randn(20, 3, 16, 16)
    alone, places = explaining.one_window(images, 8)
    assert alone.shape == images.shape and set(places.flatten().tolist()) == {0, 1}
    small = torch.nn.functional.interpolate(images, (8, 8), mode="bilinear", antialias=True)
    row, column = places[5].tolist()
    assert torch.equal(alone[5, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8], small[5])
    maps = torch.zeros(20, 4, 4)
    maps[:, :2, :2] = 1.0
    maps[:, 3, 3] = -5.0
    shares = explaining.share_inside(maps, places, 2)
    assert shares.tolist() == [float(place.tolist() == [0, 0]) for place in places]


def test_ranks_break_ties_at_random_and_correlate_with_themselves():
    maps = torch.randn(4, 5, 5)
    order = explaining.ranked(maps)
    assert torch.equal(maps.flatten(1).gather(1, order), maps.flatten(1).sort(1).values)
    tied = explaining.ranked(torch.zeros(200, 3, 3)).double().mean(0)
    assert (tied - 4).abs().max() < 1
    torch.testing.assert_close(explaining.correlation(maps, 3 * maps + 1), torch.ones(4).double())
    torch.testing.assert_close(explaining.correlation(maps, -maps), -torch.ones(4).double())


def test_diffusion_fills_only_what_was_taken_away():
    images, mask = torch.ones(1, 3, 12, 12), torch.zeros(1, 1, 12, 12)
    images[..., 6:] = 3.0
    mask[..., 4:8, 4:8] = 1.0
    filled = explaining.diffused(images, mask)
    assert torch.equal(filled * (1 - mask), images * (1 - mask))
    inside = filled[0, 0, 4:8, 4:8]
    assert (inside > 0.9).all() and (inside < 3.1).all() and (inside[:, 0] < inside[:, -1]).all()


def test_an_interval_holds_the_mean_and_narrows_with_the_images():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 5
    mean, low, high = explaining.interval(values)
    assert low < mean < high and mean == pytest.approx(5, abs=0.15) and high - low == pytest.approx(4 / 20, abs=0.03)


def test_every_method_is_measured(monkeypatch):
    times = iter(range(1, 1000))
    monkeypatch.setattr(explaining, "seconds_of", lambda call: call() is None or next(times))
    network = tiny(num_classes=5)
    images = torch.randn(60, 3, 16, 16)
    with torch.no_grad():
        network.head.bias -= network(images).mean(0)  # so that every class is answered
        targets = network(images).argmax(1)
    rivals = contestants(network)
    assert set(rivals) > {"random", "centre", "composed", "occlusion", "rollout", "Grad-CAM", "RISE 128"}
    fewer = {name: rivals[name] for name in ("centre", "composed", "Grad-CAM")}
    rows = sum(explaining.measure(network, images, targets, 4, fewer, rivals), [])
    assert {row["method"] for row in rows} == set(fewer)
    assert len(rows) == 21 and all(row["low"] <= row["mean"] <= row["high"] for row in rows)

    cost = explaining.costs(network, images, fewer, rounds=1)
    assert [row["mean"] for row in cost] == [4 / 3, 8 / 7, 12 / 11]  # of the second turn, the first warms up


def test_every_rival_gives_a_map_of_patches():
    network = tiny(num_classes=5)
    for name, rival in contestants(network).items():
        maps = rival(torch.randn(2, 3, 16, 24), torch.tensor([1, 4]))
        assert maps.shape == (2, 4, 6) and torch.isfinite(maps).all(), name
        assert not any(parameter.grad is not None for parameter in network.parameters()), name
