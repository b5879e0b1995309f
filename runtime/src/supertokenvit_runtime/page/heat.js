// Paints over a photograph what in it spoke for a class.

const COLOUR = [255, 70, 0];
const SIDE = 512; // pixels of the painting's longer side; the browser stretches it over the photograph

/**
 * Paints a map in which something spoke for the class. What spoke against it is left out.
 *
 * @param {HTMLCanvasElement} canvas - To paint on; it gets the shape of the photograph.
 * @param {{patches: number[][], box: number[]}} map - A value for each patch, row by row, and the box that the patches
 *   cover: its left, upper, right and lower edge as fractions of the photograph's width and height.
 * @param {number} width - Of the photograph.
 * @param {number} height - Of the photograph.
 */
export function paint(canvas, { patches, box: [left, top, right, bottom] }, width, height) {
  const scale = Math.min(1, SIDE / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const columns = places(canvas.width, left, right, patches[0].length);
  const largest = Math.max(...patches.flat());
  const context = canvas.getContext("2d");
  const painting = context.createImageData(canvas.width, canvas.height);
  places(canvas.height, top, bottom, patches.length).forEach((row, y) => {
    columns.forEach((column, x) => {
      if (row === null || column === null) return;
      const value = Math.max(0, between(patches, row, column)) / largest;
      painting.data.set([...COLOUR, 255 * value ** 0.8], 4 * (y * canvas.width + x));
    });
  });
  context.putImageData(painting, 0, 0);
}

/** For each of `length` pixels, between which of `count` patches it lies; null where the model sees nothing. */
function places(length, first, last, count) {
  return Array.from({ length }, (_, pixel) => {
    const place = (pixel + 0.5) / length;
    if (place < first || place > last) return null;
    return Math.min(count - 1, Math.max(0, (count * (place - first)) / (last - first) - 0.5));
  });
}

function between(patches, row, column) {
  const y = Math.floor(row);
  const x = Math.floor(column);
  const below = Math.min(y + 1, patches.length - 1);
  const beside = Math.min(x + 1, patches[0].length - 1);
  const along = (line) => line[x] + (column - x) * (line[beside] - line[x]);
  return along(patches[y]) + (row - y) * (along(patches[below]) - along(patches[y]));
}
