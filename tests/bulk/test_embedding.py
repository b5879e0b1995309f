"""The column `embedding` holds what the classifier sees."""

import numpy as np
import pytest
import torch
from PIL import Image

from supertokenvit.bulk.embedding import with_embeddings
from supertokenvit.bulk.parts import Parts
from supertokenvit.exporting.export import export
from supertokenvit.model_folder import load_model
from supertokenvit.prediction import load

from .test_command import answer, ended, rows_in


def test_an_embedding_is_the_mean_over_the_views_of_what_the_classifier_sees(model, pictures, tmp_path, inline):
    rows = answer(model, tmp_path / "a.parquet", pictures, embeddings=True)
    plain = answer(model, tmp_path / "b.parquet", pictures)
    network, predictor = load_model(model).model, load(model)
    assert rows[5]["embedding"] is None and rows[5]["error"] == "not an image"
    for row, other in zip(rows[:5], plain, strict=False):
        assert row["labels"] == other["labels"]
        np.testing.assert_allclose(row["probabilities"], other["probabilities"], rtol=1e-5)
        x = predictor.preprocess(Image.open(row["file"]).convert("RGB"))[None] / 255
        x = (x - 0.5) / 0.5
        with torch.inference_mode():
            seen = [network.forward_head(network.forward_features(view), pre_logits=True) for view in (x, x.flip(3))]
            logits = [network.get_classifier()(features) for features in seen]
        np.testing.assert_allclose(row["embedding"], ((seen[0] + seen[1]) / 2)[0], rtol=1e-4, atol=1e-5)
        likely = ((logits[0] + logits[1]) / 2).softmax(1).max()
        assert row["probabilities"][0] == pytest.approx(float(likely), rel=1e-4)


def test_embeddings_of_images_in_their_own_shapes_are_those_of_each_alone(model):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (16, side, 3), dtype=np.uint8) for side in (16, 24, 16, 32)]
    predictor = with_embeddings(load(model, resize="keep"))
    for row, image in zip(predictor(images), images, strict=True):
        np.testing.assert_allclose(row.embedding, predictor(image)[0].embedding, rtol=1e-4, atol=1e-5)


def test_a_file_with_other_columns_is_not_gone_on_with(model, pictures, tmp_path, capsys, inline):
    out = tmp_path / "a.parquet"
    answer(model, out, pictures)
    code, errors = ended(capsys, pictures, "--model", model, "--out", out, "--resume", "--embeddings")
    assert code == 1 and "other options" in errors
    assert "embedding" not in rows_in(out)[0]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_exported_files_give_the_embeddings_of_their_model(model, pictures, tmp_path, capsys, inline, format):
    file = export(model, format=format, embedding=True, out=str(tmp_path / "with"))
    rows = answer(file, tmp_path / "a.parquet", pictures, embeddings=True)
    wanted = answer(model, tmp_path / "b.parquet", pictures, embeddings=True)
    for row, other in zip(rows, wanted, strict=True):
        assert row["labels"] == other["labels"] and row["error"] == other["error"]
        if other["embedding"] is not None:
            np.testing.assert_allclose(row["embedding"], other["embedding"], atol=0.02)
            np.testing.assert_allclose(row["probabilities"], other["probabilities"], atol=5e-3)


@pytest.mark.slow
def test_an_exported_file_without_embeddings_says_so_in_one_line(model, pictures, tmp_path, capsys, inline):
    file = export(model, out=str(tmp_path / "without"))
    code, errors = ended(capsys, pictures, "--model", file, "--out", tmp_path / "a.parquet", "--embeddings")
    assert code == 1 and "no output embedding; export the model anew with --embedding true" in errors
    assert errors.count("\n") == 0 and not Parts(tmp_path / "a.parquet").folder.exists()
