"""What a server answers: predictions, and a problem for whatever cannot be answered."""

import io
import json
import re
import socket
import time

import numpy as np
import pytest
from PIL import Image

from tests.runtime.clients import near, png, problem, serving_fake, serving_file, until
from tests.runtime.fake_engines import FAIL
from tests.runtime.graphs import CLASSES, expected, write_graph


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = write_graph(tmp_path_factory.mktemp("served") / "model.onnx")
    with serving_file(path, "--max-mb", "1") as running:
        yield running


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "fake.json"
    settings = {"deadline": 0.5, "drain": 0, "max_megapixels": 1, "max_waiting_mb": 0.5}
    with serving_fake(path, settings, explains=True, enough=8) as running:
        yield running


def form(*files):
    """A form with files, and its content type."""
    parts = [
        b'--cut\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n%s\r\n' % each for each in files
    ]
    return b"".join(parts) + b"--cut--\r\n", {"Content-Type": "multipart/form-data; boundary=cut"}


def raw(server, content, seconds=20):
    """What a server answers to bytes, until it closes."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(content)
        return connection.makefile("rb").read()


def test_an_image_is_answered_as_by_numpy(server):
    status, content = server.predict(png(30, 40, 35))
    (row,) = content["predictions"]
    assert status == 200 and content["model"] == "colours"
    assert near(row, expected(np.array([30, 40, 35]))) and row["labels"][0] == "green"
    _, content = server.predict(png(30, 40, 35), "/v1/predict?topk=1&model=colours")
    assert content["predictions"][0]["labels"] == ["green"]


def test_files_of_a_form_are_answered_in_order_and_a_bad_one_harms_no_other(server):
    body, headers = form(png(250, 0, 0), b"words", png(0, 0, 250, size=(9, 7)), png(0, 250, 0)[:45])
    status, content = server.predict(body, headers=headers)
    rows = content["predictions"]
    assert status == 200 and [row.get("labels", [None])[0] for row in rows] == ["red", None, "blue", None]
    assert [row["problem"]["status"] for row in (rows[1], rows[3])] == [415, 422]


def test_one_bad_file_in_a_form_has_its_own_status(server):
    body, headers = form(b"words")
    problem(server.ask("POST", "/v1/predict", body, headers), 415)


@pytest.mark.parametrize("body", [b"", png(1, 1, 1)[:20], png(1, 1, 1)[:45]], ids=["empty", "header", "truncated"])
def test_a_damaged_image_is_422(server, body):
    problem(server.ask("POST", "/v1/predict", body), 422)


@pytest.mark.parametrize("body", [b"words", b"{}", b"%PDF-1.7", b"PK\x03\x04", b"\x00" * 999, b"<svg/>"])
def test_what_is_no_image_is_415(server, body):
    problem(server.ask("POST", "/v1/predict", body), 415)


def test_too_many_pixels_are_422(fake):
    assert "over the limit of 1 megapixels" in problem(
        fake.ask("POST", "/v1/predict", png(0, 0, 0, size=(1001, 1001))), 422
    )


@pytest.mark.parametrize("topk", ["0", "-1", "x", "1.5", "", "9" * 5000, "²"])
def test_a_wrong_topk_is_422(server, topk):
    from urllib.parse import quote

    problem(server.ask("POST", f"/v1/predict?topk={quote(topk)}", png(0, 0, 0)), 422)


def test_what_is_not_there_is_404_and_a_wrong_method_405(server):
    problem(server.ask("GET", "/nothing"), 404)
    problem(server.ask("GET", "/v1/predict/"), 404)
    problem(server.ask("POST", "/v1/predict?model=other", png(0, 0, 0)), 404)
    problem(server.ask("POST", "/v1/explain", png(0, 0, 0)), 404)
    answer = server.ask("GET", "/v1/predict")
    problem(answer, 405)
    assert answer[1]["Allow"] == "POST"


@pytest.mark.parametrize(
    "body, headers",
    [
        (b"", {"Content-Type": "multipart/form-data"}),
        (b"nonsense", {"Content-Type": "multipart/form-data; boundary=cut"}),
        (form(b"x")[0][:-20], {"Content-Type": "multipart/form-data; boundary=cut"}),
    ],
)
def test_a_form_that_cannot_be_read_is_a_problem_of_its_sender(server, body, headers):
    assert server.ask("POST", "/v1/predict", body, headers)[0] in (400, 415, 422)


def test_a_form_without_files_is_422(server):
    body = b'--cut\r\nContent-Disposition: form-data; name="files"\r\n\r\nwords\r\n--cut--\r\n'
    problem(server.ask("POST", "/v1/predict", body, {"Content-Type": "multipart/form-data; boundary=cut"}), 422)


def test_an_announced_body_over_the_limit_is_413_before_it_is_sent(server):
    found = raw(server, b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413 ") and b"application/problem+json" in found


def test_a_body_in_chunks_over_the_limit_is_413_while_it_is_sent(server):
    chunks = (bytes(100_000) for _ in range(15))
    assert "over the limit of 1 MB" in problem(server.ask("POST", "/v1/predict", chunks), 413)


def test_a_body_within_the_limit_may_come_in_chunks(server):
    content = png(250, 0, 0)
    status, answer = server.predict(iter([content[:20], content[20:]]))
    assert status == 200 and answer["predictions"][0]["labels"][0] == "red"


def test_a_body_that_does_not_come_is_408(fake):
    began = time.monotonic()
    found = raw(fake, b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
    assert found.startswith(b"HTTP/1.1 408 ") and time.monotonic() - began < 10


def test_no_answer_in_time_is_504(fake, tmp_path):
    with serving_fake(tmp_path / "slow.json", {"deadline": 0.3}, seconds=1) as slow:
        assert "0.3 s" in problem(slow.ask("POST", "/v1/predict", png(0, 0, 0)), 504)


def test_an_engine_that_fails_is_500_for_that_image_alone(tmp_path):
    with serving_fake(tmp_path / "slow.json", seconds=0.05) as slow:
        threads, answers = slow.together([png(*colour) for colour in [(9, 9, 90), FAIL, (90, 9, 9), (9, 90, 9)] * 3])
        for thread in threads:
            thread.join()
        assert [status for status, _ in answers] == [200, 500, 200, 200] * 3
        assert [answers[place][1]["predictions"][0]["labels"][0] for place in (0, 2, 3)] == ["blue", "red", "green"]


def test_models_say_their_classes(server):
    status, _, content = server.ask("GET", "/v1/models")
    (model,) = content["models"]
    assert status == 200 and model["classes"] == CLASSES and model["name"] == "colours" and not model["explains"]


def test_explanations_are_json_or_png(fake):
    status, _, content = fake.ask("POST", "/v1/explain?class=green", png(0, 0, 0))
    assert status == 200 and content["explanation"]["label"] == "green"
    status, headers, content = fake.ask("POST", "/v1/explain", png(250, 0, 0), {"Accept": "image/png"})
    assert (status, headers["Content-Type"], content) == (200, "image/png", b"\x89PNG of it")
    assert problem(fake.ask("POST", "/v1/explain?class=dog", png(0, 0, 0)), 422) == "dog: no such class"


def test_explanations_are_of_the_whole_photograph(fake):
    file = io.BytesIO()
    Image.new("RGB", (160, 80)).save(file, "JPEG")
    _, _, content = fake.ask("POST", "/v1/explain", file.getvalue())
    assert content["explanation"]["size"] == [160, 80]  # predict lets the decoder make it smaller


def test_bodies_that_hold_too_much_together_are_refused(fake):
    assert "too many bodies" in problem(fake.ask("POST", "/v1/predict", bytes(600_000)), 429)
    assert fake.predict(png(250, 0, 0))[0] == 200


def test_health_and_readiness(server):
    assert server.ask("GET", "/healthz")[0] == 200
    assert server.ask("GET", "/readyz")[0] == 200


def test_counters_count_requests_and_batches(server):
    before, batches = server.metric("requests_total"), server.metric("batch_size_sum")
    for _ in range(3):
        server.predict(png(0, 0, 0))
    server.ask("GET", "/nothing")
    assert server.metric("requests_total") == before + 6  # and two looks at the counters themselves
    assert server.metric("batch_size_sum") == batches + 3
    assert server.metric("engine_seconds_sum") > 0 and server.metric("queue_length") == 0
    text = server.ask("GET", "/metrics")[2].decode()
    assert 'supertokenvit_requests_total{route="other",status="404"}' in text
    assert 'supertokenvit_request_seconds_count{route="/v1/predict"}' in text


def test_each_request_is_one_line_without_names_and_contents(server):
    server.ask("POST", "/v1/predict?secret=1", png(0, 0, 0))
    server.ask("GET", "/secret%0aline")
    until(lambda: server.said("GET other 404"))
    line = server.said("POST /v1/predict 200")[-1].split()
    assert line[2:5] == ["POST", "/v1/predict", "200"] and line[6:] == ["ms", "batch", "1"]
    assert not server.said("secret")


def test_what_comes_while_the_engine_computes_is_the_next_batch(tmp_path):
    with serving_fake(tmp_path / "slow.json", {"batch": 16}, seconds=0.02) as slow:
        threads, answers = slow.together([png(9, 9, 90)] * 17)
        for thread in threads:
            thread.join()
        assert {status for status, _ in answers} == {200}
        assert slow.metric("batch_size_count") <= 8


def test_others_need_the_token(tmp_path):
    (tmp_path / "token").write_text("open-sesame\n")
    path = write_graph(tmp_path / "model.onnx")
    with serving_file(path, "--token-file", str(tmp_path / "token"), "--host", "0.0.0.0") as server:
        server.address = server.address.replace("0.0.0.0", "127.0.0.1")
        for said in ({}, {"Authorization": "Bearer open"}, {"Authorization": "open-sesame"}, {"Authorization": "é"}):
            answer = server.ask("GET", "/v1/models", headers={k: v.encode("latin-1") for k, v in said.items()})
            problem(answer, 401)
            assert answer[1]["WWW-Authenticate"] == "Bearer"
        problem(server.ask("POST", "/v1/predict", png(0, 0, 0)), 401)
        problem(server.ask("GET", "/metrics"), 401)
        assert server.ask("GET", "/v1/models", headers={"Authorization": "Bearer open-sesame"})[0] == 200
        assert server.ask("GET", "/healthz")[0] == server.ask("GET", "/readyz")[0] == 200


def test_several_models_are_asked_by_name(tmp_path):
    from tests.runtime.graphs import about

    one = write_graph(tmp_path / "a.onnx")
    two = write_graph(tmp_path / "b.onnx", about(name="dark"), sign=-1)
    with serving_file(one, "--model", str(one), str(two)) as server:
        assert server.predict(png(90, 0, 9))[1]["predictions"][0]["labels"][0] == "red"
        assert server.predict(png(90, 0, 9), "/v1/predict?model=dark")[1]["predictions"][0]["labels"][0] == "green"
        assert [model["name"] for model in server.ask("GET", "/v1/models")[2]["models"]] == ["colours", "dark"]


def test_an_answer_does_not_wait_for_a_timer(server):
    connection, seconds = server.connect(), []
    for _ in range(30):
        began = time.perf_counter()
        assert server.ask("POST", "/v1/predict", png(0, 0, 0), connection=connection)[0] == 200
        seconds.append(time.perf_counter() - began)
    connection.close()
    assert sorted(seconds)[15] < 0.03  # small segments that wait for each other take 40 ms


def test_the_description_names_what_is_there(server, fake):
    status, _, content = server.ask("GET", "/openapi.json")
    assert status == 200 and "/v1/explain" not in content["paths"] and "security" not in content
    assert "/v1/explain" in fake.ask("GET", "/openapi.json")[2]["paths"]
    assert json.dumps(content).count("$ref")


def test_the_page_is_at_the_root_and_asks_this_server(server):
    status, headers, content = server.ask("GET", "/")
    page = content.decode()
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {"app.js", "page.css", "opened.js"} <= set(named)
    script = server.ask("GET", "/app.js")[2].decode()
    for name in {*named, *re.findall(r'(?:from |import\()"\./([^"]+)"', script)}:
        status, headers, content = server.ask("GET", f"/{name}")
        assert status == 200 and content, name
        assert headers["Content-Type"].split(";")[0] == {"js": "text/javascript", "css": "text/css"}.get(
            name.rsplit(".")[-1], "image/svg+xml"
        )
    listing = {"answers": "server", "models": ["colours"], "explained": [], "examples": []}
    assert server.ask("GET", "/models.json")[2] == listing


def test_the_page_knows_whose_answers_can_be_explained(fake):
    assert fake.ask("GET", "/models.json")[2]["explained"] == fake.ask("GET", "/models.json")[2]["models"] != []


@pytest.mark.parametrize("path", ["/page/app.js", "/../app.js", "/index.html", "/py.typed"])
def test_nothing_but_the_page_is_read_from_the_disk(server, path):
    assert server.ask("GET", path)[0] == 404
