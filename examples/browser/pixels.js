// The pixels that a model was trained on: resizing as Pillow does it, cropping as torchvision does.
//
// transformers.js itself resizes with a canvas in browsers and without smoothing under Node, which gives other pixels.
// It leaves an image alone that already has the size it wants, so prepare it here first.

const FILTERS = {
  2: [1, (x) => Math.max(0, 1 - Math.abs(x))], // Pillow's numbers: 2 is bilinear, 3 bicubic (a = -0.5)
  3: [2, cubic],
};

function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** For each new position: the first old one that it takes, and the weights of it and those after. */
function weights(size, newSize, [support, filter]) {
  const scale = size / newSize;
  const stretch = Math.max(scale, 1); // when shrinking, the filter covers all pixels in between
  return Array.from({ length: newSize }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const end = Math.min(size, Math.trunc(centre + support * stretch + 0.5));
    const values = Array.from({ length: end - first }, (_, k) => filter((first + k - centre + 0.5) / stretch));
    const sum = values.reduce((a, b) => a + b);
    return [first, values.map((value) => value / sum)];
  });
}

/**
 * `Image.resize` of Pillow on 8-bit RGB: columns first, then rows, rounded to 8 bits in between.
 *
 * @param {{data: ArrayLike<number>, width: number, height: number}} image Three values a pixel, row by row.
 * @param {number} resample Pillow's number of the filter.
 */
export function resize({ data, width, height }, newWidth, newHeight, resample) {
  if (!(resample in FILTERS)) throw new Error(`resample: expected 2 or 3, got ${resample}`);
  const across = pass(data, width, height, newWidth, FILTERS[resample], 3, 3 * width, 3 * newWidth, 3);
  const rows = pass(across, height, newWidth, newHeight, FILTERS[resample], 3 * newWidth, 3, 3, 3 * newWidth);
  return { data: rows, width: newWidth, height: newHeight };
}

/** Resize one side: `step` leads along it and `line` across it in `data`; `newLine` and `newStep` in what is returned. */
function pass(data, size, lines, newSize, filter, step, line, newLine, newStep) {
  const out = new Uint8ClampedArray(lines * newSize * 3); // it rounds, and clips what a bicubic filter overshoots
  weights(size, newSize, filter).forEach(([first, values], i) => {
    for (let j = 0; j < lines; j++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let k = 0; k < values.length; k++) sum += values[k] * data[(first + k) * step + j * line + channel];
        out[i * newStep + j * newLine + channel] = sum;
      }
    }
  });
  return out;
}

function crop({ data, width }, left, top, newWidth, newHeight) {
  const out = new Uint8ClampedArray(newWidth * newHeight * 3);
  for (let y = 0; y < newHeight; y++) {
    const start = 3 * ((top + y) * width + left);
    out.set(data.subarray(start, start + 3 * newWidth), 3 * y * newWidth);
  }
  return { data: out, width: newWidth, height: newHeight };
}

function halfToEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/**
 * Resize and crop an image as an exported `preprocessor_config.json` says.
 *
 * @param {{data: ArrayLike<number>, width: number, height: number}} image 8-bit RGB.
 * @param {object} settings The content of the file.
 */
export function prepare(image, settings) {
  const { size, crop_size: wanted, resample } = settings;
  let { width, height } = size;
  if (size.shortest_edge) {
    const factor = size.shortest_edge / Math.min(image.width, image.height);
    [width, height] = [image.width, image.height].map((side) => Math.trunc(side * factor + 1e-9));
  }
  const resized = resize(image, width, height, resample);
  if (!settings.do_center_crop || width < wanted.width || height < wanted.height) return resized;
  const [left, top] = [(width - wanted.width) / 2, (height - wanted.height) / 2].map(halfToEven);
  return crop(resized, left, top, wanted.width, wanted.height);
}
