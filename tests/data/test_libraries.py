import struct

import pytest
from PIL import Image

from supertokenvit.data.decode import BadImage
from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import fingerprint, open_splits
from tests.training.conftest import make_folder


def save_hf(folder, **labels):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    tables = {}
    for split, values in labels.items():
        rows = {"image": [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(len(values))], "label": values}
        tables[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(tables).save_to_disk(str(folder))
    return f"hfds/{folder}"


@pytest.mark.parametrize("several", [False, True])
def test_hugging_face_dataset_from_disk(tmp_path, several):
    import datasets

    label = datasets.ClassLabel(names=["cat", "dog"])
    if several:
        label = datasets.Sequence(label)
    features = datasets.Features({"image": datasets.Image(), "label": label})
    rows = {
        "image": [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(20)],
        "label": [[0, 1] if several else i % 2 for i in range(20)],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    splits = open_splits(f"hfds/{tmp_path / 'set'}")
    assert splits.train.classes == ["cat", "dog"] and len(splits.train) == 18
    assert splits.train.multi_label is several
    i = 3
    if several:
        assert splits.train.targets.tolist() == [[1, 1]] * 18
    else:
        assert splits.train.image(i).getpixel((0, 0))[0] % 2 == splits.train.targets[i]


def test_hugging_face_takes_a_local_folder_that_was_not_saved_by_it(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    splits = open_splits(f"hfds/{make_folder(tmp_path / 'data')}")
    assert splits.train.classes == ["cat", "dog"]


def test_mnist_whose_targets_are_a_tensor_opens(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, n in (("train", 20), ("t10k", 10)):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + bytes(n * 784))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + bytes(i % 10 for i in range(n)))
    splits = open_splits(f"torch/mnist:{tmp_path}")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (10, 10, 10)


def test_an_interrupted_download_is_taken_up_again(tmp_path, monkeypatch):
    asked = []

    def create_dataset(name, root, split, download):
        asked.append((split, download))
        if not download and len(asked) < 2:
            raise RuntimeError("Dataset not found or corrupted.")
        return [(Image.new("RGB", (4, 4)), i % 2) for i in range(8)]

    monkeypatch.setattr("timm.data.create_dataset", create_dataset)
    assert len(open_splits(f"torch/cifar10:{tmp_path}").test) == 8  # the folder is there already
    assert asked == [("train", False), ("train", True), ("validation", False)]


def test_digits_have_a_fixed_test_part():
    splits = open_splits("digits")
    assert len(splits.train) + len(splits.val) + len(splits.test) == 1797
    assert abs(len(splits.test) - 359) <= 2 and splits.train.image(0).size == (8, 8)
    assert fingerprint(splits.test) == fingerprint(open_splits("digits", seed=9).test)
    assert fingerprint(splits.train) != fingerprint(open_splits("digits", seed=9).train)


def hf(tmp_path, labels, kind, images=None):
    import datasets

    images = images or [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).save_to_disk(str(tmp_path / "n"))
    return f"hfds/{tmp_path / 'n'}"


def test_a_row_without_an_image_is_a_bad_image(tmp_path):
    import datasets

    images = [None if i == 3 else Image.new("RGB", (4, 4), (9 * i, 9, 9)) for i in range(10)]
    names = datasets.ClassLabel(names=["a", "b"])
    train = open_splits(hf(tmp_path, [i % 2 for i in range(10)], names, images), val_fraction=0).train
    assert train.name(3).endswith("/3") and len(fingerprint(train)) == 16
    with pytest.raises(BadImage, match="the row has no image"):
        train.image(3)
    assert train.image(4).size == (4, 4)


@pytest.mark.parametrize(
    ("labels", "kind", "said"),
    [
        ([0.5, 1.0], "float32", "row 0 has a float for a label"),
        (["a", None], "string", "row 1 has no label"),
        ([[0], [1, None]], ["int64"], "row 1 has no label"),
        ([True, False], "bool", "row 0 has a bool for a label"),
    ],
)
def test_labels_of_the_wrong_kind_are_one_line(tmp_path, labels, kind, said):
    import datasets

    column = datasets.Sequence(datasets.Value(kind[0])) if isinstance(kind, list) else datasets.Value(kind)
    with pytest.raises(DataError, match=said) as error:
        open_splits(hf(tmp_path, labels, column))
    assert "\n" not in str(error.value)


def test_labels_that_are_numbers_without_names_are_read(tmp_path):
    import datasets

    train = open_splits(hf(tmp_path, [1.0, 2.0, 1.0, 10.0], datasets.Value("float32")), val_fraction=0).train
    assert train.classes == ["1", "10", "2"] and train.targets.tolist() == [0, 2, 0, 1]


def test_parts_of_a_hugging_face_set_are_found_by_a_word_and_others_are_said(tmp_path):
    spec = save_hf(tmp_path / "set", train_images=[0, 1] * 5, dev=[0, 1], unsupervised=[0, 1, 0])
    splits = open_splits(spec)
    assert len(splits.val) == 2 and splits.val_is_own
    assert splits.left_out == ["the part unsupervised of 3 rows, whose name says no split"]
    with pytest.raises(DataError, match="two parts are the val split"):
        open_splits(save_hf(tmp_path / "two", train=[0, 1], valid=[0, 1], dev=[0, 1]))
