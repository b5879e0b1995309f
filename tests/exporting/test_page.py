"""The page in a browser: it answers as predict does, asks no other host, and works with a keyboard and on a phone."""

import struct
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin
from rich.console import Console

from supertokenvit.explaining.explanation import explain
from supertokenvit.exporting import browser_runtime
from supertokenvit.exporting.export import export
from supertokenvit.exporting.parity import RESIZED, SAME, photographs
from supertokenvit.prediction import load
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from ..training.conftest import TINY, make_folder
from .browsing import SECONDS, SIZES, TOUCH, answer, browsers, hand_over, look, ready, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MODEL, OTHER = "stt_micro.cifar10", "animals"
REDUCED = 0.01  # means of blocks instead of all pixels


@pytest.fixture(scope="module")
def start():
    with browsers() as function:
        yield function


@pytest.fixture(scope="module")
def chromium(start):
    started = start()
    yield started
    started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, chromium):
    if not (browser_runtime.cache() / browser_runtime.ARCHIVE).exists():
        pytest.skip(f"{browser_runtime.ARCHIVE} is not there: supertokenvit export --format web fetches it")
    root = tmp_path_factory.mktemp("page")
    data = make_folder(root / "data", classes=("ant", "bee", "cow"), per_class=12)
    train_recipe(Recipe(**(TINY | {"data": str(data), "out": str(root / OTHER)})), console=Console(quiet=True))
    (root / "shown").mkdir()
    for number, picture in zip(range(3), photographs(), strict=False):
        picture.save(root / "shown" / f"part_{number}.png")
    export(MODEL, format="web", out=str(root / "page"), examples=str(root / "shown"))
    return export(root / OTHER, format="web", out=str(root / "page")).parent


@pytest.fixture(scope="module")
def server(folder):
    with served(folder) as started:
        yield started


@pytest.fixture(scope="module")
def predictor():
    return load(MODEL)


@pytest.fixture
def opened(chromium, server):
    """A function that opens the page; no request may have left its origin, and nothing may have been an error."""
    contexts, asked, errors = [], [], []

    def open_page(wait=True, **options):
        context = chromium.new_context(**(SIZES["desktop"] | options))
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        context.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.origin)
        if wait:
            ready(page)
        return page

    open_page.errors = errors
    server.asked.clear(), server.posted.clear(), server.answers.clear(), server.replaced.clear()
    yield open_page
    for context in contexts:
        context.close()
    strange = [url for url in asked if not url.startswith((f"{server.origin}/", f"blob:{server.origin}/"))]
    assert asked and not strange and not errors


def saved(tmp_path, picture, name="photograph.png", **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def wanted(predictor, picture):
    found = predictor(picture, 10)[0]
    assert found.error is None
    return dict(zip(found.labels, found.probabilities, strict=True))


def differ(found, expected):
    """The largest difference to what `predict` says of five classes, the best of them first."""
    assert isinstance(found, dict) and len(found) == 5, found
    assert list(found.values()) == sorted(found.values(), reverse=True)
    return max(abs(found[label] - expected[label]) for label in found)


@pytest.mark.parametrize("size", SIZES)
def test_it_answers_in_windows_of_each_size(opened, predictor, tmp_path, size):
    begin = time.monotonic()
    page = opened(**SIZES[size])
    assert time.monotonic() - begin < SECONDS and page.inner_text("#status") == "Ready."
    path = saved(tmp_path, next(photographs()))
    begin = time.monotonic()
    assert differ(look(page, path), wanted(predictor, path)) <= RESIZED
    assert time.monotonic() - begin < SECONDS
    wide = "() => [document.documentElement.scrollWidth, innerWidth]"
    scrolled, inner = page.evaluate(wide)
    assert scrolled <= inner


def test_photographs_of_any_shape_are_answered_as_predict_does(opened, predictor, tmp_path):
    page = opened()
    worst = 0.0
    for number, picture in enumerate(photographs()):
        path = saved(tmp_path, picture, f"{number}.png")
        worst = max(worst, differ(look(page, path), wanted(predictor, path)))
    assert worst <= RESIZED, worst


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (2000, 31), (95, 95), (97, 1201), (2001, 1999)])
def test_every_pixel_reaches_the_model(opened, folder, tmp_path, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise))
    in_python = load(folder / "models" / MODEL / "model.onnx")
    assert differ(look(opened(), path), wanted(in_python, path)) <= SAME


def kinds():
    """PNG files of the kinds that browsers and Pillow might show in different colours."""
    picture = next(photographs()).resize((150, 100))
    alpha = Image.linear_gradient("L").resize(picture.size)
    gamma, rotated = PngImagePlugin.PngInfo(), Image.Exif()
    gamma.add(b"gAMA", struct.pack(">I", 100_000))
    rotated[0x0112] = 6
    return {
        "transparent": (Image.merge("RGBA", (*picture.split(), alpha)), {}),
        "grey": (picture.convert("L"), {}),
        "palette": (picture.quantize(32), {}),
        "gamma": (picture, {"pnginfo": gamma}),
        "rotated": (picture, {"exif": rotated}),
    }


@pytest.mark.parametrize("kind", ["transparent", "grey", "palette", "gamma", "rotated"])
def test_every_kind_of_png_is_read_as_predict_reads_it(opened, predictor, tmp_path, kind):
    picture, options = kinds()[kind]
    path = saved(tmp_path, picture, **options)
    assert differ(look(opened(), path), wanted(predictor, path)) <= RESIZED


def decoded_whole(path):
    """A JPEG in all its pixels: given its path, predict decodes it at a part of its size, which browsers cannot."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image)


@pytest.mark.parametrize("quality", [60, 92])
def test_a_jpeg_is_answered_as_one_that_is_decoded_whole(opened, predictor, tmp_path, quality):
    page = opened()
    for number, picture in enumerate(list(photographs())[::6]):
        path = saved(tmp_path, picture, f"{number}.jpg", quality=quality)
        assert differ(look(page, path), wanted(predictor, decoded_whole(path))) <= RESIZED


@pytest.mark.parametrize("shape", [(4000, 3000), (2499, 3333)])
def test_a_large_photograph_is_made_smaller_first(opened, predictor, tmp_path, shape):
    path = saved(tmp_path, next(photographs()).resize(shape, Image.Resampling.BICUBIC), compress_level=1)
    assert differ(look(opened(), path), wanted(predictor, path)) <= REDUCED


def test_a_photograph_of_a_camera_is_answered_and_shown_upright(opened, predictor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = next(photographs()).resize((4000, 3000), Image.Resampling.BICUBIC)
    path = saved(tmp_path, picture.rotate(90, expand=True), "camera.jpg", exif=exif, quality=95)
    page = opened()
    assert differ(look(page, path), wanted(predictor, decoded_whole(path))) <= REDUCED
    assert page.evaluate("() => [picture.naturalWidth, picture.naturalHeight]") == [4000, 3000]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_photographs_are_dropped_and_pasted(opened, predictor, tmp_path, event):
    path = saved(tmp_path, next(photographs()).resize((90, 60)))
    page = opened()
    hand_over(page, event, path.name, path.read_bytes(), "image/png")
    assert differ(answer(page), wanted(predictor, path)) <= RESIZED
    assert page.get_by_alt_text("Your photograph: photograph.png").is_visible()
    hand_over(page, event, None, b"", "")
    assert answer(page) == "There is no picture in what you dropped or pasted."


def test_what_is_no_photograph_is_said_in_plain_words_and_the_next_one_is_answered(opened, tmp_path):
    page = opened()
    good = saved(tmp_path, next(photographs()))
    assert isinstance(look(page, good), dict)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("1", (10_001, 10_000)).save(tmp_path / "large.png")
    with open(tmp_path / "heavy.png", "wb") as file:
        file.truncate(300_000_001)
    for name, said in {
        "notes.txt": "not a picture that your browser can read",
        "empty.png": "This file is empty.",
        "large.png": "the limit is 100 megapixels",
        "heavy.png": "the limit is 300 MB",
    }.items():
        assert said in look(page, tmp_path / name), name
        assert not page.is_visible("#bars") and page.get_by_role("alert").inner_text()
    assert isinstance(look(page, good), dict) and page.is_visible("#bars")


def test_the_newest_photograph_is_the_one_that_is_answered(opened, server, tmp_path):
    """The answer for an older one comes when the newer one is answered already."""
    path, free = saved(tmp_path, next(photographs())), threading.Event()

    def late():
        assert free.wait(SECONDS)
        return {"labels": ["older"], "probabilities": [1.0]}

    server.replaced["/models.json"] = {"answers": "server", "models": ["m"], "examples": []}
    server.answers += [(200, late), (200, {"labels": ["newer"], "probabilities": [1.0]})]
    page = opened()
    page.set_input_files("#file", path)
    give_up = time.monotonic() + SECONDS
    while not server.posted and time.monotonic() < give_up:
        page.evaluate("() => null")
    try:
        assert look(page, path) == {"newer": 1.0}
    finally:
        with page.expect_event("requestfinished"):
            free.set()
    page.evaluate("() => new Promise(done => setTimeout(done, 50))")
    assert answer(page) == {"newer": 1.0}


def test_a_photograph_that_comes_before_the_model_is_answered_when_it_is_there(opened, predictor, tmp_path):
    path = saved(tmp_path, next(photographs()))
    page = opened(wait=False)
    assert "being loaded" in page.inner_text("#status")
    hand_over(page, "drop", path.name, path.read_bytes(), "image/png")
    assert differ(answer(page), wanted(predictor, path)) <= RESIZED


def test_a_keyboard_is_enough(opened, predictor, tmp_path):
    path = saved(tmp_path, next(photographs()))
    page = opened()
    page.on("filechooser", lambda chooser: chooser.set_files(path))
    focused = "() => document.activeElement.id || document.activeElement.tagName"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "model"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "file"
    outline = "() => getComputedStyle(document.getElementById('file').parentElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    assert differ(answer(page), wanted(predictor, path)) <= RESIZED
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(focused) == "why"
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#map:not([hidden])", timeout=1000 * SECONDS)
    for _ in range(2):
        page.keyboard.press("Tab")
    assert page.evaluate(focused) == "file"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "BUTTON"
    page.keyboard.press("Enter")
    page.get_by_alt_text("Your photograph: part 0").wait_for()
    assert len(answer(page)) == 5
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_by_text("airplane, automobile, bird").is_visible()
    for _ in range(6):
        page.keyboard.press("Shift+Tab")
    assert page.evaluate(focused) == "model"
    page.keyboard.press("ArrowDown")
    page.get_by_text("It knows 3 things").wait_for(timeout=1000 * SECONDS)


def test_another_model_answers_for_the_same_photograph(opened, folder, tmp_path):
    path = saved(tmp_path, next(photographs()))
    page = opened()
    assert page.get_by_label("Model").input_value() == MODEL
    look(page, path)
    page.get_by_label("Model").select_option(OTHER)
    page.locator("#bars").get_by_text("ant", exact=True).wait_for(timeout=1000 * SECONDS)
    found, own = answer(page), load(folder / "models" / OTHER / "model.onnx")(path, 3)[0]
    assert list(found) == own.labels
    np.testing.assert_allclose(list(found.values()), own.probabilities, atol=RESIZED)


def painted(page):
    """The opacity of the colour over each pixel of the photograph, as the canvas has it."""
    script = """() => {
        const { width, height } = map;
        return [width, height, [...map.getContext("2d").getImageData(0, 0, width, height).data]];
    }"""
    width, height, data = page.evaluate(script)
    return np.array(data, dtype=float).reshape(height, width, 4)


@pytest.mark.parametrize("shape", [(300, 200), (160, 400)])
def test_a_heat_map_shows_what_explain_shows(opened, predictor, tmp_path, shape):
    path = saved(tmp_path, next(photographs()).crop((100, 50, 100 + shape[0], 50 + shape[1])))
    page = opened()
    label = list(look(page, path))[1]
    assert page.is_hidden("#map") and page.is_disabled("#opacity")
    page.get_by_label("Show what spoke for").select_option(label)
    page.wait_for_selector("#map:not([hidden])", timeout=1000 * SECONDS)
    expected = explain(predictor, path, label)[0].map.clip(min=0)
    found = painted(page)
    assert found.shape[:2] == expected.shape
    np.testing.assert_allclose(found[..., 3], 255 * (expected / expected.max()) ** 0.8, atol=6)
    assert page.inner_text("#status") == f"The colour shows what spoke for {label}."
    assert page.get_by_role("img", name=f"What spoke for {label}, in colour").is_visible()
    page.get_by_label("Opacity of the colour").fill("40")
    assert page.evaluate("() => map.style.opacity") == "0.4"
    page.get_by_label("Show what spoke for").select_option("nothing")
    assert page.is_hidden("#map")
    page.get_by_label("Show what spoke for").select_option(label)
    page.wait_for_selector("#map:not([hidden])", timeout=1000 * SECONDS)
    look(page, saved(tmp_path, next(photographs()), "other.png"))
    assert page.is_hidden("#map") and page.get_by_label("Show what spoke for").input_value() == ""


def test_a_server_that_explains_is_asked_for_heat_maps(opened, server, tmp_path):
    server.replaced["/models.json"] = {"answers": "server", "models": ["m", "n"], "explained": ["m"], "examples": []}
    told = {"patches": [[0.0, 1.0], [-1.0, 0.0]], "box": [20, 0, 80, 60], "size": [100, 60]}
    row = {"labels": ["a bee", "cow"], "probabilities": [0.9, 0.1]}
    nothing = told | {"patches": [[0.0, -1.0], [-1.0, 0.0]]}
    server.answers += [(200, row), (200, {"explanation": told}), (200, {"explanation": nothing}), (429, {}), (200, row)]
    page = opened()
    look(page, saved(tmp_path, next(photographs()).resize((100, 60))))
    page.get_by_label("Show what spoke for").select_option("a bee")
    page.wait_for_selector("#map:not([hidden])", timeout=1000 * SECONDS)
    assert server.posted[-1][0] == "/v1/explain?model=m&class=a%20bee"
    opacity = painted(page)[..., 3]
    assert opacity.max() == opacity[0, 79] == 255 and not opacity[:, :20].any() and not opacity[:, 80:].any()
    assert not opacity[40:, 20:40].any()  # what spoke against it
    page.get_by_label("Show what spoke for").select_option("cow")
    page.get_by_text("Nothing in this photograph spoke for cow.").wait_for()
    assert page.is_hidden("#map")
    page.get_by_label("Show what spoke for").select_option("a bee")
    page.wait_for_selector("#problem:not(:empty)")
    opened.errors.clear()  # Chromium writes one line for the status 429
    page.get_by_label("Model").select_option("n")
    assert list(answer(page)) == ["a bee", "cow"] and page.is_hidden("#heat")


def test_a_screen_reader_hears_what_is_seen(opened, tmp_path):
    page = opened()
    look(page, saved(tmp_path, next(photographs())))
    best = page.get_by_role("list", name="Most likely").get_by_role("listitem").first.inner_text().split("\n")
    assert page.get_by_role("status").text_content().startswith(f"Most likely {best[0]}, {best[1]}. Answered in ")
    assert page.get_by_role("heading", level=1).inner_text() == "What is in this photograph?"
    for name in ("Choose a photograph", "Example: part 0"):
        assert page.get_by_role("button", name=name).count() == 1
    assert page.get_by_role("combobox", name="Model").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_people_out(opened, tmp_path, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = opened(color_scheme=scheme, reduced_motion="reduce")
    grounds = {"light": "rgb(246, 246, 243)", "dark": "rgb(20, 24, 23)"}
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == grounds[scheme]
    for path in (saved(tmp_path, next(photographs())), tmp_path / "notes.txt"):
        (tmp_path / "notes.txt").write_text("no picture")
        look(page, path)
        found = axe.run(page).response["violations"]
        assert not found, [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]


def test_a_phone_offers_its_camera(start, server, tmp_path):
    phone = start(f"--blink-settings={TOUCH}")
    page = phone.new_page(**SIZES["phone"])
    page.goto(server.origin)
    ready(page)
    assert page.get_by_text("Take a photograph").is_visible() and not page.is_visible("#invitation")
    assert page.get_attribute("#camera", "capture") == "environment"
    page.set_input_files("#camera", saved(tmp_path, next(photographs())))
    assert len(answer(page)) == 5
    phone.close()


IMAGE = (
    "url => new Promise(done => Object.assign(new Image(), { src: url, onload: done, onerror: () => done('error') }))"
)
REQUEST = "url => fetch(url, { mode: 'no-cors' }).then(() => 'sent', String)"
INLINE = """() => {
    const script = document.createElement("script");
    script.text = "window.ran = true";
    document.body.append(script);
    return window.ran === undefined;
}"""


def test_the_policy_holds_in_the_page_and_in_its_thread(chromium, server, tmp_path):
    with chromium.new_context() as context, served(tmp_path) as other:
        page = context.new_page()
        page.goto(server.origin)
        ready(page)
        (thread,) = page.workers
        for where in (page, thread):
            assert "Failed to fetch" in where.evaluate(REQUEST, f"{other.origin}/stolen")
            assert where.evaluate(REQUEST, f"{server.origin}/models.json") == "sent"
        assert page.evaluate(IMAGE, f"{other.origin}/stolen.png") == "error"
        assert page.evaluate(INLINE)
        assert other.asked == []


def test_what_is_loaded_is_what_is_needed(opened, server):
    opened()
    asked = {path.partition("?")[0] for path in server.asked}
    needed = {"/index.html", "/", "/models.json", f"/models/{MODEL}/model.onnx", f"/models/{MODEL}/model.json"}
    needed |= {f"/onnxruntime/{name}" for name in browser_runtime.FILES}
    assert needed - {"/index.html"} <= asked
    assert not any("animals" in path or path.endswith((".map", "/server.js")) for path in asked)


def test_a_server_may_answer_instead(opened, server, tmp_path):
    listing = {"answers": "server", "models": ["a & b"], "examples": []}
    server.replaced["/models.json"] = listing
    row = {"labels": ["owl", "elk", "fox"], "probabilities": [0.75, 0.2, 0.05]}
    server.answers += [(200, row), (429, {}), (415, {}), (500, {}), (200, row)]
    page = opened()
    assert "sent to the server" in page.inner_text("#place") and not page.is_visible("#choice")
    path = saved(tmp_path, next(photographs()))
    assert look(page, path) == {"owl": 0.75, "elk": 0.2, "fox": 0.05}
    assert server.posted == [("/v1/predict?topk=5&model=a%20%26%20b", path.read_bytes())]
    assert "The server is busy" in look(page, path)
    assert "not a picture" in look(page, path)
    assert "could not answer (500)" in look(page, path)
    assert look(page, path) == {"owl": 0.75, "elk": 0.2, "fox": 0.05}
    assert not any("onnx" in asked for asked in server.asked)
    assert len(opened.errors) == 3 and all("Failed to load resource" in error for error in opened.errors)
    opened.errors.clear()


def test_a_model_that_is_gone_is_said(opened, server):
    server.replaced["/models.json"] = {"answers": "browser", "models": ["gone"], "examples": []}
    page = opened()
    assert page.get_by_role("alert").inner_text() == "The model could not be loaded. Load this page again."
    opened.errors.clear()


def test_opened_as_a_file_it_says_what_to_do(chromium, folder):
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto((folder / "index.html").as_uri())
        page.wait_for_selector("#problem:not(:empty)")
        assert "python -m http.server" in page.inner_text("#problem") and page.inner_text("#status") == ""


def test_the_page_of_serve_answers_as_predict_does(chromium, tmp_path):
    from ..runtime.clients import serving_file

    path = saved(tmp_path, next(photographs()))
    with serving_file(export(MODEL, out=str(tmp_path / "exported"))) as running:
        page = chromium.new_context(**SIZES["desktop"]).new_page()
        page.goto(f"http://{running.address}/")
        ready(page)
        found = look(page, path)
    wanted = load(MODEL)(path)[0]
    assert list(found) == wanted.labels
    assert all(abs(found[label] - p) < 5e-3 for label, p in zip(wanted.labels, wanted.probabilities, strict=True))
