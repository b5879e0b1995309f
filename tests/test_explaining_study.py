"""The measures of explanations say what they are meant to say."""

import pytest
import torch

from studies import explaining
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


@pytest.mark.parametrize("fill", [False, True])
def test_removal_is_large_for_the_true_map_and_small_for_its_reverse(fill):
    images, target = torch.zeros(3, 3, 16, 16), torch.ones(3, dtype=torch.long)
    images[:, :, :4, :4] = 1.0
    true = torch.zeros(3, 4, 4)
    true[:, 0, 0] = 1.0
    right, wrong, tied = (
        explaining.removal(Bright(), images, target, maps, fill) for maps in (true, -true, torch.zeros(3, 4, 4))
    )
    assert (right > 0.5).all() and torch.allclose(wrong, -right) and (tied.abs() < right).all()


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
    monkeypatch.setattr(explaining, "seconds_of", lambda call: 1.0)
    network = tiny(num_classes=5)
    images = torch.randn(60, 3, 16, 16)
    with torch.no_grad():
        targets = network(images).argmax(1)
    monkeypatch.setattr(
        explaining, "composites", lambda x, t, n: (torch.randn(4, 3, 32, 32), torch.arange(4).expand(4, 4))
    )
    rows = explaining.measure(network, images, targets, 4)
    names = {row["method"] for row in rows}
    assert names == {"random", "centre", "composed", "gradient", "attention", "integrated", "occlusion"}
    assert len(rows) == 21 and all(row["low"] <= row["mean"] <= row["high"] for row in rows)
