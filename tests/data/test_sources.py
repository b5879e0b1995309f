import pickle

import numpy as np
import pytest

from supertokenvit.data.sources import DataError, ProcessShare, Subset, renamed, targets_by_name
from supertokenvit.data.splits import fingerprint, open_splits
from tests.training.conftest import make_folder


@pytest.mark.parametrize("kind", ["folder", "digits"])
def test_sources_survive_pickling(tmp_path, kind):
    source = open_splits("digits" if kind == "digits" else str(make_folder(tmp_path / "data"))).train
    copy = pickle.loads(pickle.dumps(source))
    assert fingerprint(copy) == fingerprint(source) and copy.image(3).tobytes() == source.image(3).tobytes()


def folder_source(tmp_path, **options):
    return open_splits(str(make_folder(tmp_path / "data", **options)), val_fraction=0).train


@pytest.mark.parametrize("count", [1, 2, 5, 14, 20])
def test_shares_of_processes_are_equally_long_and_miss_no_image(tmp_path, count):
    source = folder_source(tmp_path, per_class=7)
    shares = [ProcessShare(source, rank, count) for rank in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert sorted({int(i) for share in shares for i in share.indices}) == list(range(14))
    assert sum(map(len, shares)) - 14 < count
    assert [share.name(0) for share in shares] == [source.name(rank % 14) for rank in range(count)]


def test_targets_follow_the_names_of_classes(tmp_path):
    source, classes = folder_source(tmp_path, classes=("b", "d")), ["a", "b", "c", "d"]
    same = renamed(source, classes, "these")
    assert [classes[k] for k in same.targets] == [source.classes[k] for k in source.targets]
    several = Subset(source, range(3))
    several.targets = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)
    assert targets_by_name(several, classes).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 1]]
    with pytest.raises(DataError, match="these has classes that the training images lack: d; training knows b"):
        renamed(source, ["b"], "these")
