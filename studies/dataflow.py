"""Draws docs/figures/dataflow.svg, the data flow of stt_s25. The numbers come from the model's own options.

python -m studies.dataflow
"""

from collections.abc import Sequence
from html import escape

from supertokenvit.model.family import VARIANTS, architecture_of_variant
from supertokenvit.model.windows import at_least, patch_grid_size

from .common import DOCS, refuse_options

WIDTH, HEIGHT = 900, 690
INK, GREY, LINE, PANEL = "#1b2733", "#55636f", "#8493a0", "#f3f6f9"
SANS, MONO = "Helvetica,Arial,DejaVu Sans,sans-serif", "Menlo,Consolas,DejaVu Sans Mono,monospace"
STYLES = {
    "": f'font-size="13" font-family="{SANS}" fill="{GREY}" text-anchor="middle"',
    "left": f'font-size="13" font-family="{SANS}" fill="{GREY}"',
    "title": f'font-size="15" font-family="{SANS}" font-weight="bold" fill="{INK}" text-anchor="middle"',
    "shape": f'font-size="13" font-family="{MONO}" fill="{INK}" text-anchor="middle"',
}
PATCH, SUPER, CLASS = "#8fbfe0", "#e0701a", "#5b3f9e"  # always with its own shape: square, disc, diamond

size = VARIANTS["stt_s25"].get("img_size", 224)
a = architecture_of_variant("stt_s25")
M = a.window
h = patch_grid_size(size, a.stride)[0]
gh = at_least(h, M)
out: list[str] = []


def text(x: float, y: float, words: str, kind: str = "") -> None:
    """A line of text, centred at x: plain, "title", "shape" or "left" (begins at x); STYLES says how they look."""
    out.append(f'<text x="{x:g}" y="{y:g}" {STYLES[kind]}>{escape(words)}</text>')


def patches(x: float, y: float, pitch: float, gap: float = 1.0, *, n: int = M, opacity: float = 1.0) -> None:
    """Patch tokens, n x n of them, from the upper left corner of the first."""
    side = f"{pitch - gap:g}"
    cells = [f"M{x + i % n * pitch:g} {y + i // n * pitch:g}h{side}v{side}h-{side}z" for i in range(n * n)]
    out.append(f'<path d="{"".join(cells)}" fill="{PATCH}" opacity="{opacity}"/>')


def disc(x: float, y: float, radius: float) -> None:
    """A Super token, by its centre."""
    out.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{SUPER}" stroke="#ffffff"/>')


def diamond(x: float, y: float, radius: float) -> None:
    """The class token, by its centre."""
    out.append(f'<path d="M{x - radius} {y}L{x} {y - radius}L{x + radius} {y}L{x} {y + radius}Z" fill="{CLASS}"/>')


def box(x: float, y: float, width: float, height: float, fill: str = PANEL, stroke: str = "#d3dbe2") -> None:
    """A rounded frame."""
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    out.append(f'<rect {place} rx="8" fill="{fill}" stroke="{stroke}"/>')


def line(path: str, color: str = LINE, width: float = 1.0, dash: str = "", opacity: float = 1.0) -> None:
    """A path without a head."""
    style = f'stroke="{color}" stroke-width="{width}" opacity="{opacity}"'
    style += f' stroke-dasharray="{dash}"' if dash else ""
    out.append(f'<path d="{path}" fill="none" {style}/>')


def arrow(path: str, tip: tuple[float, float], way: str, color: str = INK, dash: str = "") -> None:
    """A path whose head has its point at `tip` and points "right", "left", "down" or "up"."""
    line(path, color, 1.8, dash)
    x, y = tip
    dx, dy = {"right": (-1, 0), "left": (1, 0), "down": (0, -1), "up": (0, 1)}[way]
    back, side = 9, 5
    one = (x + back * dx + side * dy, y + back * dy + side * dx)
    two = (x + back * dx - side * dy, y + back * dy - side * dx)
    out.append(f'<path d="M{x} {y}L{one[0]} {one[1]}L{two[0]} {two[1]}Z" fill="{color}"/>')


def image() -> None:
    """A picture of hills, the image that comes in."""
    x, y, side = 32, 70, 140
    text(x + side / 2, 44, "image", "title")
    out.append(f'<clipPath id="frame"><rect x="{x}" y="{y}" width="{side}" height="{side}" rx="6"/></clipPath>')
    out.append(f'<g clip-path="url(#frame)"><rect x="{x}" y="{y}" width="{side}" height="{side}" fill="#dbe9f4"/>')
    out.append(f'<circle cx="{x + 102}" cy="{y + 36}" r="16" fill="#f3c14b"/>')
    out.append(f'<path d="M{x} {y + 104}L{x + 48} {y + 52}L{x + 92} {y + 108}V{y + 140}H{x}Z" fill="#9db4a3"/>')
    out.append(f'<path d="M{x + 30} {y + 120}L{x + 94} {y + 70}L{x + 140} {y + 112}V{y + 140}H{x}Z" fill="#7c9a86"/>')
    out.append(f'<path d="M{x} {y + 112}Q{x + 60} {y + 96} {x + 140} {y + 124}V{y + 140}H{x}Z" fill="#5d8068"/></g>')
    text(x + side / 2, 240, "[B, 3, H, W]", "shape")
    text(x + side / 2, 259, f"{size} × {size} px")
    arrow("M182 140H210", (216, 140), "right")


def stem() -> None:
    """Convolutions of stride 2, each half as high and twice as wide."""
    x, n = 228, a.stride.bit_length() - 1
    text(286, 44, "conv stem", "title")
    for i in range(n):
        height, width = 124 / 1.6**i, 16 + 9 * i
        box(x, 140 - height / 2, width, height, "#dfe5ea", LINE)
        x += width + 11
    text(286, 240, "[B, C, h, w]", "shape")
    text(286, 259, f"{n} × conv 3×3, stride 2")
    text(286, 277, f"stride {a.stride}, C = {a.width}")
    arrow("M352 140H380", (386, 140), "right")


def windows() -> None:
    """The patch grid cut into windows, and one of them enlarged."""
    pitch, gap, x0, y0 = 168 / h, 6, 400, 56
    step = M * pitch + gap
    text(x0 + 93, 44, "patch grid in windows", "title")
    for i in range(gh * gh):
        x, y = x0 + i % gh * step, y0 + i // gh * step
        patches(x, y, pitch, 0.8)
        disc(x + M * pitch / 2, y + M * pitch / 2, 7)
    x, y, side = x0 + (gh - 1) * step, y0 + step, M * pitch  # the window that is enlarged
    big, bx, by = 17, 704, 90
    line(
        f"M{x + side + 2} {y - 3}L{bx - 48} {by - 10}M{x + side + 2} {y + side + 2}L{bx - 48} {by + big * M + 9}",
        dash="4 3",
    )
    line(f"M{x - 3} {y - 3}h{side + 5}v{side + 5}h-{side + 5}z", INK)
    text(x0 + 93, 259, f"h × w = {h} × {h} patch tokens")
    text(x0 + 93, 277, f"gh × gw = {gh} × {gh} windows (cut once)")
    text(bx + 43, 44, "one window", "title")
    box(bx - 48, by - 10, M * big + 57, M * big + 19, "#ffffff", INK)
    patches(bx, by, big, 2)
    disc(bx - 25, by + big * M / 2 - 1, 12)
    text(bx + 43, 240, "[B, gh·gw, T, C]", "shape")
    text(bx + 43, 259, "one learned Super token and")
    text(bx + 43, 277, f"{M} × {M} patch tokens: T = {1 + M * M}")
    line("M747 288V300Q747 310 737 310H216Q206 310 206 320V332", INK, 1.8)
    arrow("M206 330V338", (206, 346), "down")


def local_layers() -> None:
    """Three windows, each for itself, and the mixer between their Super tokens."""
    box(32, 350, 330, 262)
    text(197, 376, f"local layer × L = {a.local_layers}", "title")
    for i in range(3):
        x = 48 + i * 105
        box(x, 412, 88, 114, "#ffffff", LINE)
        patches(x + 10, 450, 10, 1.5)
        disc(x + 44, 432, 11)
    for i in range(2):
        x = 48 + i * 105 + 57
        line(f"M{x + 9} 432H{x + 70}", SUPER, 1.8)
        arrow(f"M{x + 60} 432H{x + 70}", (x + 79, 432), "right", SUPER)
        arrow(f"M{x + 9} 432H{x + 20}", (x, 432), "left", SUPER)
    text(197, 402, "mixer: among the Super tokens alone")
    text(197, 547, "attention over the T tokens of a window, MLP;")
    text(197, 565, "then the mixer" + " (depthwise conv 3×3)" * (a.mixer == "conv"))
    text(197, 592, f"[B, gh·gw, T, C]: {gh * gh} × {1 + M * M} tokens", "shape")


def left_behind() -> None:
    """Super tokens go on to the right, patch tokens end."""
    text(408, 396, "Super")
    text(408, 412, "tokens")
    arrow("M362 424H444", (452, 424), "right", SUPER)
    line("M362 490H398Q408 490 408 500V508", LINE, 1.8, "5 4")
    arrow("M408 504V508", (408, 516), "down", LINE)
    patches(408 - M * 3.5, 524, 7, 1.2, opacity=0.45)
    text(408, 592, "patch tokens")
    text(408, 609, "left behind")


def global_layers() -> None:
    """Every Super token attends to every other one."""
    box(454, 350, 194, 262)
    text(551, 376, f"global layer × G = {a.global_layers}", "title")
    pitch = 108 / (gh - 1)
    centres = [(497 + i % gh * pitch, 406 + i // gh * pitch) for i in range(gh * gh)]
    pairs = [(one, two) for i, one in enumerate(centres) for two in centres[i + 1 :]]
    line("".join(f"M{one[0]:g} {one[1]:g}L{two[0]:g} {two[1]:g}" for one, two in pairs), SUPER, 0.8, opacity=0.3)
    for x, y in centres:
        disc(x, y, 10)
    text(551, 547, f"attention over the {gh * gh}")
    text(551, 565, "Super tokens, MLP")
    text(551, 592, "[B, gh·gw, C]", "shape")
    arrow("M648 460H678", (686, 460), "right", SUPER)


def class_layers() -> None:
    """The class token reads the Super tokens; the classifier reads the class token."""
    box(688, 350, 182, 262)
    text(779, 376, f"class layer × K = {a.class_layers}", "title")
    pitch = 66 / (gh - 1)
    for i in range(gh * gh):
        disc(713 + i % gh * pitch, 427 + i // gh * pitch, 7)
    arrow("M794 460H818", (824, 460), "right", CLASS)
    diamond(843, 460, 13)
    text(779, 547, "the class token reads")
    text(779, 565, "the Super tokens alone")
    text(779, 592, "[B, 1, C]", "shape")
    arrow("M779 612V626", (779, 634), "down", CLASS)
    box(688, 636, 182, 34, "#ffffff", CLASS)
    text(779, 658, "head: [B, classes]", "shape")


def legend() -> None:
    """Which shape is which token."""
    y = 653
    patches(36, y - 7, 15, n=1)
    text(57, y + 5, "patch token", "left")
    disc(161, y, 8)
    text(176, y + 5, "Super token", "left")
    diamond(284, y, 9)
    text(300, y + 5, "class token", "left")
    text(430, y + 5, f"numbers: stt_s25 at {size} px", "left")


def draw() -> None:
    """Writes docs/figures/dataflow.svg."""
    for part in (image, stem, windows, local_layers, left_behind, global_layers, class_layers, legend):
        part()
    what = "Data flow of the Super Token Transformer"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{what}">'
    ground = f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="14" fill="#ffffff" stroke="#d3dbe2"/>'
    lines = [head, f"<title>{what}</title>", ground, *out, "</svg>"]
    (DOCS / "figures" / "dataflow.svg").write_text("\n".join(lines) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure."""
    refuse_options(__doc__, argv)
    draw()


if __name__ == "__main__":
    main()
