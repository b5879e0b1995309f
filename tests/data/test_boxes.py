"""Boxes are read as they were written, and what cannot be used is named."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from supertokenvit.data.boxes import known_size, size_of
from supertokenvit.data.decode import BadImage
from supertokenvit.data.sources import DataError, Subset
from supertokenvit.data.splits import fingerprint, open_splits, read_splits
from tests.data.box_folders import coco, picture, some_boxes, thing, write_coco, write_voc, xml

SPLITS = {"train": some_boxes(8), "val": some_boxes(4, seed=1), "test": some_boxes(3, seed=2)}


def boxes_of(source):
    """The boxes of each image, with the names of their classes."""
    return [
        [(source.classes[k], tuple(map(int, box))) for box, k in zip(target.boxes, target.labels, strict=True)]
        for target in map(source.target, range(len(source)))
    ]


def voc(root):
    return write_voc(root, SPLITS)


def in_folders(root):
    return write_coco(root, SPLITS)


def roboflow(root):
    return write_coco(root, SPLITS, "roboflow")


def beside_the_images(root):
    for split, images in SPLITS.items():
        (root / split).mkdir(parents=True)
        for i, boxes in enumerate(images):
            picture(boxes).save(root / split / f"{i:03}.png")
            (root / split / f"{i:03}.xml").write_text(xml(boxes))
    return str(root)


@pytest.mark.parametrize("write", [voc, in_folders, roboflow, beside_the_images])
def test_every_layout_gives_the_boxes_that_were_written(tmp_path, write):
    stored = read_splits(write(tmp_path / "data"))
    assert stored.left_out == []
    assert {split: boxes_of(source) for split, source in stored.splits.items()} == SPLITS
    for source in stored.splits.values():
        assert source.classes == ["blue", "red"] and source.task == "detection"
        for i, boxes in enumerate(boxes_of(source)):
            assert source.targets[i].tolist() == [float(name in dict(boxes)) for name in source.classes]
            assert source.image(i).size == (64, 48)


@pytest.mark.parametrize("write", [lambda root: write_voc(root, {"": some_boxes(20)}),
                                   lambda root: write_coco(root, {"train": some_boxes(20)}, "flat")])  # fmt: skip
def test_without_splits_some_images_are_cut_off_with_their_boxes(tmp_path, write):
    splits = open_splits(write(tmp_path / "data"), val_fraction=0.2)
    assert len(splits.val) >= 2 and "ranked by a hash" in splits.rule
    found = sorted(boxes_of(splits.train) + boxes_of(splits.val))
    assert found == sorted(some_boxes(20))
    names = {splits.val.name(i) for i in range(len(splits.val))}
    assert not names & {splits.train.name(i) for i in range(len(splits.train))}


def test_images_without_boxes_are_images_of_nothing(tmp_path):
    images = [*some_boxes(3), [], []]
    for spec in (write_voc(tmp_path / "voc", {"train": images}), write_coco(tmp_path / "coco", {"train": images})):
        source = read_splits(spec).splits["train"]
        assert boxes_of(source) == images and source.target(4).boxes.shape == (0, 4)


def test_what_cannot_be_used_of_xml_files_is_named(tmp_path):
    root = tmp_path / "data"
    write_voc(root, {"train": some_boxes(3)})
    flat, turned = thing("red", (9, 9, 9, 20)), thing("blue", (30, 5, 20, 9))
    odd = "<object><name>red</name></object><object><bndbox><xmin>1</xmin></bndbox></object>"
    odd += thing("red", ("nan", 1, 5, 5))
    (root / "Annotations" / "000.xml").write_text(xml(some_boxes(1)[0], more=flat + turned + odd))
    (root / "JPEGImages" / "bare.png").write_bytes((root / "JPEGImages" / "000.png").read_bytes())
    (root / "Annotations" / "lone.xml").write_text(xml([]))
    stored = read_splits(str(root))
    assert boxes_of(stored.splits["train"]) == some_boxes(3)
    assert stored.left_out == [
        "1 object without a box: JPEGImages/000.png: red",
        "1 box without a class: JPEGImages/000.png: object",
        "3 boxes without area, such as JPEGImages/000.png: red (9, 9, 9, 20)",
        "1 image without an annotation: JPEGImages/bare.png",
        "1 annotation without an image: Annotations/lone.xml",
    ]
    faults = stored.splits["train"].faults["box without area"]
    assert faults[1:] == ["JPEGImages/000.png: blue (30, 5, 20, 9)", "JPEGImages/000.png: red (nan, 1, 5, 5)"]


def test_what_cannot_be_used_of_json_files_is_named(tmp_path):
    root = tmp_path / "data"
    write_coco(root, {"train": some_boxes(3)})
    table = root / "annotations" / "instances_train.json"
    content = json.loads(table.read_text())
    content["images"].append({"id": 9, "file_name": "../../etc/gone.png"})
    content["annotations"] += [
        {"id": 70, "image_id": 9, "category_id": 7, "bbox": [1, 1, 5, 5]},
        {"id": 71, "image_id": 100, "category_id": 99, "bbox": [1, 1, 5, 5]},
        {"id": 72, "image_id": 100, "category_id": 7, "bbox": [1, 1, 0, 5]},
        {"id": 73, "image_id": 100, "category_id": 7, "bbox": [1, 1, 5]},
        {"id": 74, "image_id": 5555, "category_id": 7, "bbox": [1, 1, 5, 5]},
        {"id": 75, "category_id": 7, "bbox": [1, 1, 5, 5]},
        {"id": 76, "image_id": 100, "category_id": [7], "bbox": [1, 1, 5, 5]},
        "nonsense",
    ]
    content["categories"].append({"id": 50, "name": "never"})
    table.write_text(json.dumps(content))
    picture([]).save(root / "train" / "more.png")
    stored = read_splits(str(root))
    assert boxes_of(stored.splits["train"]) == some_boxes(3)
    assert stored.splits["train"].classes == ["blue", "red"]
    said = "\n".join(stored.left_out)
    for line in (
        "1 image that is annotated and not there: ../../etc/gone.png",
        "2 boxes of an unknown class, such as train/000.png: annotation 71",
        "1 box without area: train/000.png: red (1, 1, 1, 6)",
        "1 annotation without a box: train/000.png: annotation 73",
        "3 boxes of an image that is not listed, such as annotations/instances_train.json: annotation 74",
        "1 image that no annotation names: train/more.png",
        "1 class without a box: never",
    ):
        assert line in said, said


def test_crowds_and_difficult_boxes_are_marked(tmp_path):
    write_voc(tmp_path / "voc", {"train": some_boxes(2)})
    (tmp_path / "voc" / "Annotations" / "000.xml").write_text(
        xml(some_boxes(1)[0], more=thing("red", (1, 1, 9, 9), "<difficult>1</difficult>"))
    )
    assert read_splits(str(tmp_path / "voc")).splits["train"].target(0).crowd.tolist() == [False, True]
    write_coco(tmp_path / "coco", {"train": some_boxes(2)})
    table = tmp_path / "coco" / "annotations" / "instances_train.json"
    content = json.loads(table.read_text())
    content["annotations"][0]["iscrowd"] = 1
    table.write_text(json.dumps(content))
    assert read_splits(str(tmp_path / "coco")).splits["train"].target(0).crowd.tolist() == [True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "declares an XML entity"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
            "declares an XML entity",
        ),
        ("<annotation><object>", "damaged XML"),
        ("", "damaged XML"),
    ],
)
def test_xml_that_is_damaged_or_unsafe_is_one_line(tmp_path, text, said):
    write_voc(tmp_path / "data", {"train": some_boxes(2)})
    (tmp_path / "data" / "Annotations" / "001.xml").write_text(text)
    with pytest.raises(DataError, match=said) as error:
        read_splits(str(tmp_path / "data"))
    assert "001.xml" in str(error.value) and "\n" not in str(error.value)


def test_json_that_is_damaged_is_one_line(tmp_path):
    write_coco(tmp_path / "data", {"train": some_boxes(2)})
    table = tmp_path / "data" / "annotations" / "instances_train.json"
    whole = table.read_text()
    table.write_text(whole[:-10])
    with pytest.raises(DataError, match="instances_train.json: damaged JSON"):
        read_splits(str(tmp_path / "data"))
    table.write_text(whole.replace('"file_name"', '"name"'))
    with pytest.raises(DataError, match="an image or a class in it is damaged"):
        read_splits(str(tmp_path / "data"))


def test_two_files_for_a_split_are_refused_and_captions_are_left_alone(tmp_path):
    root = tmp_path / "data"
    write_coco(root, {"train": some_boxes(2)})
    (root / "annotations" / "captions_train.json").write_text(json.dumps(coco(some_boxes(1))))
    assert len(read_splits(str(root)).splits["train"]) == 2
    (root / "annotations" / "instances_training.json").write_text(json.dumps(coco(some_boxes(1))))
    with pytest.raises(DataError, match="two files of boxes for the train split"):
        read_splits(str(root))


def test_an_image_of_another_size_than_annotated_is_not_used(tmp_path):
    write_voc(tmp_path / "data", {"train": some_boxes(2)})
    Image.new("RGB", (48, 64)).save(tmp_path / "data" / "JPEGImages" / "000.png")
    source = read_splits(str(tmp_path / "data")).splits["train"]
    with pytest.raises(BadImage, match="annotated at 64 x 48 pixels, and has 48 x 64"):
        source.image(0)
    source.image(1)


def test_sizes_are_known_from_annotations_and_else_from_images(tmp_path):
    write_voc(tmp_path / "data", {"train": some_boxes(2)})
    (tmp_path / "data" / "Annotations" / "001.xml").write_text("<annotation><size><width>0</width></size></annotation>")
    source = Subset(read_splits(str(tmp_path / "data")).splits["train"], [1, 0])
    assert [known_size(source, i) for i in range(2)] == [None, (64, 48)]
    assert [size_of(source, i) for i in range(2)] == [(64, 48)] * 2


def test_boxes_belong_to_the_upright_photograph(tmp_path):
    """A photograph that lies on its side in the file is turned before its boxes are looked at."""
    boxes = some_boxes(1)
    write_voc(tmp_path / "data", {"train": boxes * 2})
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright = picture(boxes[0])
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "data" / "JPEGImages" / "000.png", exif=exif)
    image = read_splits(str(tmp_path / "data")).splits["train"].image(0)
    assert np.array_equal(np.asarray(image), np.asarray(upright))


def test_the_fingerprint_changes_with_a_box(tmp_path):
    root = tmp_path / "data"
    write_voc(root, {"train": some_boxes(3)})
    before = fingerprint(read_splits(str(root)).splits["train"])
    file = root / "Annotations" / "001.xml"
    text = file.read_text()
    file.write_text(text.replace("<xmax>", "<xmax>1", 1))
    assert fingerprint(read_splits(str(root)).splits["train"]) != before
    file.write_text(text)
    assert fingerprint(read_splits(str(root)).splits["train"]) == before


def test_one_class_is_enough_and_no_box_at_all_is_refused(tmp_path):
    open_splits(write_voc(tmp_path / "one", {"train": [[("red", (1, 1, 9, 9))]] * 4, "val": some_boxes(1)[:1]}))
    with pytest.raises(DataError, match="no box in its annotations"):
        open_splits(write_voc(tmp_path / "none", {"train": [[], []], "val": [[]]}))


def test_a_folder_of_classes_with_other_json_and_xml_files_stays_one_of_classes(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            picture([]).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data" / "notes.json").write_text('{"images": 1, "annotations": 2, "categories": 3}')
    (tmp_path / "data" / "more.xml").write_text("<a/>")
    assert read_splits(str(tmp_path / "data")).splits["train"].task == "classification"


@pytest.mark.slow
def test_a_million_boxes_are_read_in_seconds(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    count = 1000
    for i in range(count):
        (tmp_path / "data" / "train" / f"{i:03}.png").touch()
    content = coco([[("red", (1, 1, 9, 9))]] * count)
    one = content["annotations"][0]
    content["annotations"] = [one | {"id": i, "image_id": 100 + i % count} for i in range(1_000_000)]
    (tmp_path / "data" / "train.json").write_text(json.dumps(content))
    began = time.process_time()
    assert len(read_splits(str(tmp_path / "data")).splits["train"].boxes) == 1_000_000
    assert time.process_time() - began < 60
