"""The study of the server, in small: its client counts what a server really answers."""

import pytest

from studies import serving as study
from studies.common import read_rows
from studies.serving_client import LOST, REFUSED, run
from tests.runtime.clients import png, serving_fake
from tests.runtime.graphs import write_graph


def address_of(server):
    host, port = server.address.split(":")
    return host, int(port)


def test_the_client_counts_what_the_server_counts(tmp_path):
    with serving_fake(tmp_path / "fake.json", seconds=0.005) as server:
        rows = run(address_of(server), [png(0, 0, 0), b"words"], 4, 0.5, None)
        assert len(rows) == server.metric("requests_total")
    assert {(number, status) for _, _, status, number in rows} == {(0, 200), (1, 415)}
    assert all(seconds >= 0.005 for _, seconds, status, _ in rows if status == 200)


def test_the_client_keeps_its_rate_when_the_server_does_not(tmp_path):
    with serving_fake(tmp_path / "fake.json", {"queue": 2, "batch": 1}, seconds=0.05) as server:
        rows = run(address_of(server), [png(0, 0, 0)], 64, 1.0, 100)
    assert 80 <= len(rows) <= 101
    assert {status for _, _, status, _ in rows} == {200, 429}


def test_the_client_tells_lost_from_refused(tmp_path):
    with serving_fake(tmp_path / "fake.json") as server:
        server.process.kill()
        server.process.wait()
        assert {row[2] for row in run(address_of(server), [png(0, 0, 0)], 2, 1.0, None)} == {REFUSED}
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as careless:

        def close_at_once():
            connection, _ = careless.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=close_at_once)
        thread.start()
        rows = run(careless.getsockname(), [png(0, 0, 0)], 1, 0.0001, None)
        thread.join()
    assert [row[2] for row in rows] == [LOST]


@pytest.mark.slow
def test_the_study_measures_everything(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(12):
        (tmp_path / "images" / f"{number:02}.png").write_bytes(png(number, 9, 9))
    write_graph(tmp_path / "model.onnx")
    out = tmp_path / "rows.csv"
    words = ["--model", str(tmp_path / "model.onnx"), "--images", str(tmp_path / "images"), "--rounds", "1"]
    study.main([*words, "--seconds", "2", "--out", str(out)])
    figures = {row["what"]: row for row in read_rows(out)}
    assert len(figures) == 20
    for name, row in figures.items():
        if "lost" in name or "wrong" in name or "exit code" in name:
            assert float(row["value"]) == 0, name
