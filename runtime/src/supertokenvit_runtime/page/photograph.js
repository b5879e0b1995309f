// From the bytes of a picture to the pixels that the model takes: upright, in RGB, and not too many of them.
import { Problem } from "./problem.js";

const MOST_BYTES = 300_000_000;
const MOST_PIXELS = 100_000_000;
const PLENTY = 4_000_000; // the model resizes so many pixels by itself, exactly; more would cost time and memory only
const STRIP_PIXELS = 4_000_000; // how much is read from a canvas at a time: a whole one would double the memory

/**
 * Reads a picture.
 *
 * The browser decodes it and rotates it as its EXIF says. Colour profiles are ignored, and what is transparent becomes
 * white: `supertokenvit predict` does the same.
 *
 * @param {Blob} photograph - The file.
 * @param {number} enough - Pixels that the shorter side keeps if a large picture is made smaller.
 * @returns {Promise<{pixels: Uint8Array, height: number, width: number}>} RGB values, row by row.
 */
export async function read(photograph, enough) {
  if (photograph.size > MOST_BYTES) throw new Problem("This file is too large: the limit is 300 MB.");
  const bitmap = await decode(photograph);
  try {
    if (bitmap.width * bitmap.height > MOST_PIXELS) {
      throw new Problem("This picture is too large: the limit is 100 megapixels.");
    }
    const wanted = Math.ceil(Math.sqrt((bitmap.width * bitmap.height) / PLENTY));
    const most = Math.floor(Math.min(bitmap.width, bitmap.height) / enough);
    return reduce(bitmap, Math.max(1, Math.min(wanted, most)));
  } finally {
    bitmap.close();
  }
}

async function decode(photograph) {
  if (photograph.size === 0) throw new Problem("This file is empty.");
  try {
    return await createImageBitmap(photograph, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Problem("This file is not a picture that your browser can read. JPEG, PNG and WebP files work.");
  }
}

/**
 * Takes the mean of each block of factor x factor pixels. A canvas could scale too, but each browser does it in its own
 * way; the mean is the same everywhere, and it is what Pillow's `reduce` computes.
 */
function reduce(bitmap, factor) {
  const width = Math.ceil(bitmap.width / factor);
  const height = Math.ceil(bitmap.height / factor);
  const pixels = new Uint8Array(height * width * 3);
  const rows = Math.max(1, Math.floor(STRIP_PIXELS / (bitmap.width * factor)));
  for (let top = 0; top < height; top += rows) {
    const strip = pixelsOf(bitmap, top * factor, Math.min(rows * factor, bitmap.height - top * factor));
    if (factor === 1) {
      copy(strip.data, pixels, top * width * 3);
      continue;
    }
    for (let row = 0; row * factor < strip.height; row++) {
      for (let column = 0; column < width; column++) {
        mean(strip, row * factor, column * factor, factor, pixels, ((top + row) * width + column) * 3);
      }
    }
  }
  return { pixels, height, width };
}

function pixelsOf(bitmap, top, height) {
  const canvas = new OffscreenCanvas(bitmap.width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) throw new Problem("This picture is too large for your browser.");
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, height);
  context.drawImage(bitmap, 0, -top);
  return context.getImageData(0, 0, bitmap.width, height);
}

/** Copies what a canvas gives, red, green, blue and opacity of each pixel, without the opacity. */
function copy(data, pixels, place) {
  for (let from = 0, to = place; from < data.length; from += 4, to += 3) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
  }
}

function mean(strip, top, left, factor, pixels, place) {
  const bottom = Math.min(top + factor, strip.height);
  const right = Math.min(left + factor, strip.width);
  let red = 0;
  let green = 0;
  let blue = 0;
  for (let y = top; y < bottom; y++) {
    for (let at = (y * strip.width + left) * 4; at < (y * strip.width + right) * 4; at += 4) {
      red += strip.data[at];
      green += strip.data[at + 1];
      blue += strip.data[at + 2];
    }
  }
  const count = (bottom - top) * (right - left);
  pixels[place] = red / count + 0.5;
  pixels[place + 1] = green / count + 0.5;
  pixels[place + 2] = blue / count + 0.5;
}
