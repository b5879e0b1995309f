"""The description of the server is true."""

import subprocess
import sys

import pytest

from tests.runtime.clients import png, serving_fake
from tests.runtime.test_serving import form

TOKEN = "open-sesame"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("described") / "fake.json"
    with serving_fake(path, {"token": TOKEN, "max_mb": 1}, explains=True) as running:
        yield running


def valid(content, name, description):
    """Checks JSON against a schema of the description."""
    schemas = pytest.importorskip("jsonschema_rs")
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    schemas.validate(schema, content)


def test_good_answers_are_as_described(server):
    description = server.ask("GET", "/openapi.json", headers=HEADERS)[2]
    body, kind = form(png(0, 0, 0), b"words")
    asked = {
        "Predictions": server.ask("POST", "/v1/predict", body, HEADERS | kind),
        "Explanation": server.ask("POST", "/v1/explain", png(0, 0, 0), HEADERS),
        "Models": server.ask("GET", "/v1/models", headers=HEADERS),
        "Status": server.ask("GET", "/readyz"),
    }
    for name, (status, _, content) in asked.items():
        assert status == 200
        valid(content, name, description)
    valid(server.ask("GET", "/nothing", headers=HEADERS)[2], "Problem", description)


@pytest.mark.slow
def test_schemathesis_finds_nothing_that_the_description_does_not_say(server, tmp_path):
    pytest.importorskip("schemathesis")
    command = "from schemathesis.cli import schemathesis; schemathesis()"
    words = ["run", f"http://{server.address}/openapi.json", "--checks", "all", "-n", "40", "--seed", "1"]
    words += ["--exclude-checks", "positive_data_acceptance"]  # no schema says which bytes are an image
    words += ["-H", f"Authorization: Bearer {TOKEN}", "--no-color", "--generation-database", "none"]
    done = subprocess.run([sys.executable, "-c", command, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert not server.said(" 500 ") and server.ask("GET", "/healthz")[0] == 200
