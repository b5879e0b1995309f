"""A browser and a static server for the tests of the page."""

import functools
import http.server
import json
import shutil
import threading
from contextlib import contextmanager

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120  # until a test gives up: the machine may be busy
SIZES = {
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    },
    "tablet": {"viewport": {"width": 820, "height": 1180}},
    "desktop": {"viewport": {"width": 1440, "height": 900}},
}
TOUCH = "primaryPointerType=2,availablePointerTypes=2,primaryHoverType=1,availableHoverTypes=1"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, notes every request, and answers what is posted with what the test has put there."""

    def log_message(self, *words):
        pass

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.replaced.get(self.path)
        if content is None:
            return super().do_GET()
        self.answer(200, content)

    def do_POST(self):
        self.server.posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        status, content = self.server.answers.pop(0)
        content = content() if callable(content) else content
        if status == 200:
            content = {"model": "m"} | (content if "explanation" in content else {"predictions": [content]})
        self.answer(status, content)

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(folder):
    """Serves a folder on a free port of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.asked, server.posted, server.answers, server.replaced = [], [], [], {}
    server.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def browsers():
    """Yields a function that starts a browser with more words on its command line; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as play:

        def start(*words):
            try:
                return play.chromium.launch(executable_path=found, args=["--no-sandbox", *words])
            except api.Error as error:
                pytest.skip(f"no browser: {str(error).splitlines()[0]}")

        yield start


def ready(page):
    """Waits until the page has done what it was asked to do."""
    page.wait_for_selector('#page[aria-busy="false"]', timeout=1000 * SECONDS)


def answer(page):
    """Waits for the answer and returns the probabilities of its labels, or what went wrong."""
    page.wait_for_selector("#status:has(.unseen), #problem:not(:empty)", timeout=1000 * SECONDS)
    problem = page.inner_text("#problem")
    if problem:
        return problem
    labels = page.eval_on_selector_all("#bars .label", "labels => labels.map(label => label.textContent)")
    widths = page.eval_on_selector_all("#bars .track span", "bars => bars.map(bar => parseFloat(bar.style.width))")
    return {label: width / 100 for label, width in zip(labels, widths, strict=True)}


def look(page, file):
    """Chooses a file and returns the answer."""
    page.set_input_files("#file", file)
    return answer(page)


def hand_over(page, event, name, content, kind):
    """Drops or pastes a file."""
    script = """([event, name, content, kind]) => {
        const data = new DataTransfer();
        if (name) data.items.add(new File([new Uint8Array(content)], name, { type: kind }));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(
            event === "paste"
                ? new ClipboardEvent("paste", { ...options, clipboardData: data })
                : new DragEvent(event, { ...options, dataTransfer: data }),
        );
    }"""
    page.evaluate(script, [event, name, list(content), kind])
