"""check-data names what is wrong with boxes."""

from PIL import Image

from tests.data.box_folders import picture, some_boxes, thing, write_voc, xml
from tests.data.test_checking import checked


def test_sound_boxes_have_no_problems_and_are_counted(tmp_path):
    report, text = checked(write_voc(tmp_path / "data", {"train": some_boxes(12), "val": some_boxes(4, seed=1)}))
    assert report.problems == [] and report.images == {"train": 12, "val": 4}
    rows = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["all", "18", "6"] in rows and ["all", "12", "4"] in rows


def test_each_fault_of_a_box_is_named(tmp_path):
    root = tmp_path / "data"
    write_voc(root, {"train": some_boxes(4), "val": some_boxes(2, seed=1)})
    flat, beyond, rim = (thing("red", box) for box in ((9, 9, 9, 20), (50, 30, 70, 40), (40, 30, 65, 49)))
    twice = "".join(thing("blue", (1, 2, 30, 40)) for _ in range(2))
    (root / "Annotations" / "000.xml").write_text(xml([], more=flat + beyond + rim + twice))
    Image.new("RGB", (48, 64), "white").save(root / "JPEGImages" / "001.png")
    (root / "JPEGImages" / "002.png").unlink()
    (root / "Annotations" / "003.xml").unlink()
    report, text = checked(root)
    for line in (
        "left out, box without area: JPEGImages/000.png: red (9, 9, 9, 20)",
        "000.png: red (50, 30, 70, 40) reaches beyond the image (64 x 48 pixels)",
        "left out, annotation without an image: Annotations/002.xml",
        "left out, image without an annotation: JPEGImages/003.png",
        "left out, name of ImageSets/Main without image or annotation: 002",
    ):
        assert any(line in said for said in report.strange), line
        assert line in text
    assert sum("is there more than once" in line for line in report.strange) == 1
    assert len(report.damaged) == 1 and "annotated at 64 x 48 pixels, and has 48 x 64" in report.damaged[0]
    assert not any("40, 30, 65, 49" in line for line in report.problems)  # a pixel beyond is a way of counting
    assert not report.fatal


def test_lines_about_other_things_stay(tmp_path):
    root = tmp_path / "data"
    write_voc(root, {"train": some_boxes(4), "val": some_boxes(2)})
    (root / "run").mkdir()
    (root / "run" / "recipe.yaml").touch()
    (root / "run" / "log.txt").touch()
    picture([]).save(root / "run" / "samples.png")
    report, _ = checked(root)
    assert "left out: 1 output of supertokenvit: run" in report.strange
