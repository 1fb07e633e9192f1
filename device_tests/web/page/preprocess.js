// From an image file to the model's input, with exactly the pixels of timm's evaluation transform.
//
// A canvas would smooth in its own way, so pixels are resized here as Pillow does it
// (src/libImaging/Resample.c of 13.0): integer weights, a pass across, one down, uint8 between.
// "Pixels" are { data: Uint8Array [height, width, 3], width, height }.

import { PageError } from "./errors.js";
import { readHeader } from "./header.js";

export const UPRIGHT = "upright";
const WHITE = [255, 255, 255];
const DARKEST_HIGH_BYTE = 16;

// By EXIF orientation: are rows columns, does it start from the right, from the bottom of the file.
const TURNS = {
  1: [false, false, false],
  2: [false, true, false],
  3: [false, true, true],
  4: [false, false, true],
  5: [true, false, false],
  6: [true, false, true],
  7: [true, true, true],
  8: [true, true, false],
};

const PRECISION_BITS = 32 - 8 - 2;
const HALF = 2 ** (PRECISION_BITS - 1);
const BICUBIC_A = -0.5;

/** Pillow's filters by the names that contracts use; `support` in pixels of the larger grid. */
export const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: bicubic },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

function bicubic(x) {
  const a = BICUBIC_A;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
  return 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/**
 * Pixels of an image file (Blob), before any resizing, as docs/image-files.md says.
 *
 * `orientation` and `background` are the contract's; what it does not say is upright and white.
 */
export async function decode(blob, name, { orientation = UPRIGHT, background = WHITE } = {}) {
  const header = readHeader(new Uint8Array(await blob.arrayBuffer()));
  if (header.refusal) {
    throw new PageError(`${name} ${header.refusal}.`, "Save it as PNG or as RGB JPEG.");
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([header.plain]), {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new PageError(
      `${name} is not an image that this browser can read.`,
      "Choose a PNG, JPEG, WebP or AVIF file.",
    );
  }
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const options = { alpha: false, willReadFrequently: true, colorSpace: "srgb" };
  const context = canvas.getContext("2d", options);
  let rgba;
  try {
    context.fillStyle = `rgb(${background.join(" ")})`;
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    rgba = context.getImageData(0, 0, width, height).data;
  } catch {
    throw new PageError(
      `${name} is too large for this browser (${width} × ${height} pixels).`,
      "Choose a smaller image.",
    );
  } finally {
    bitmap.close();
  }
  const data = new Uint8Array(width * height * 3);
  let highest = 0;
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    data[to] = rgba[from];
    data[to + 1] = rgba[from + 1];
    data[to + 2] = rgba[from + 2];
    highest = Math.max(highest, data[to], data[to + 1], data[to + 2]);
  }
  if (header.bits === 16 && highest < DARKEST_HIGH_BYTE) {
    throw new PageError(
      `${name} has 16 bits, but its values end below 4096, as of 12 bits stored in 16.`,
      "Save it with 8 bits, or scaled to the whole range.",
    );
  }
  return turn({ data, width, height }, orientation === UPRIGHT ? header.orientation : 1);
}

/** Pixels turned and mirrored as the EXIF orientation (1 to 8) says. */
function turn({ data, width, height }, orientation) {
  const [transposed, fromRight, fromBottom] = TURNS[orientation];
  const [outWidth, outHeight] = transposed ? [height, width] : [width, height];
  const out = new Uint8Array(data.length);
  for (let y = 0, to = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++, to += 3) {
      const [u, v] = transposed ? [y, x] : [x, y];
      const column = fromRight ? width - 1 - u : u;
      const row = fromBottom ? height - 1 - v : v;
      const from = 3 * (row * width + column);
      out[to] = data[from];
      out[to + 1] = data[from + 1];
      out[to + 2] = data[from + 2];
    }
  }
  return { data: out, width: outWidth, height: outHeight };
}

/** The part of the transform that moves pixels: resize, then crop. */
export function geometry(pixels, { size, resize: edge, crop_mode: mode, interpolation }) {
  const [width, height] =
    mode === "squash" ? [edge, edge] : resizedSize(pixels.width, pixels.height, edge);
  const [cropHeight, cropWidth] = size;
  return centerCrop(resize(pixels, width, height, interpolation), cropWidth, cropHeight);
}

/** [width, height] with the shorter side at `edge`, as torchvision's Resize(edge) rounds them. */
function resizedSize(width, height, edge) {
  return width <= height
    ? [edge, Math.trunc((edge * height) / width)]
    : [Math.trunc((edge * width) / height), edge];
}

/** Pillow's Image.resize for 8-bit RGB. */
export function resize(pixels, width, height, interpolation) {
  const filter = FILTERS[interpolation];
  const across = (from) => (from.width === width ? from : passAcross(from, width, filter));
  const down = (from) => (from.height === height ? from : passDown(from, height, filter));
  // Since Pillow 13: down first where that leaves much less for the pass across. What is rounded
  // first shows in the pixels.
  const less = pixels.height - height;
  const downFirst = less > 0 && less > 2 * (pixels.width - width);
  return downFirst ? across(down(pixels)) : down(across(pixels));
}

/** For each output pixel the first input pixel and its integer weights. */
function weights(from, to, { support, weight }) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: to }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const end = Math.min(from, Math.trunc(center + reach + 0.5));
    const exact = new Float64Array(end - first);
    let sum = 0;
    for (let i = 0; i < exact.length; i++) {
      exact[i] = weight((i + first - center + 0.5) * (1 / stretch));
      sum += exact[i];
    }
    const rounded = Int32Array.from(exact, (value) => {
      const share = (sum === 0 ? value : value / sum) * 2 ** PRECISION_BITS;
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    return { first, rounded };
  });
}

function passAcross({ data, width: from, height }, width, filter) {
  const out = new Uint8ClampedArray(width * height * 3);
  const columns = weights(from, width, filter);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const { first, rounded } = columns[x];
      addUp(data, (y * from + first) * 3, 3, rounded, out, (y * width + x) * 3);
    }
  }
  return { data: out, width, height };
}

function passDown({ data, width, height: from }, height, filter) {
  const out = new Uint8ClampedArray(width * height * 3);
  const rows = weights(from, height, filter);
  for (let y = 0; y < height; y++) {
    const { first, rounded } = rows[y];
    for (let x = 0; x < width; x++) {
      addUp(data, (first * width + x) * 3, width * 3, rounded, out, (y * width + x) * 3);
    }
  }
  return { data: out, width, height };
}

/** One output pixel: the weighted sum of input pixels that lie `step` values apart. */
function addUp(data, start, step, rounded, out, at) {
  let red = HALF;
  let green = HALF;
  let blue = HALF;
  for (let i = 0, p = start; i < rounded.length; i++, p += step) {
    red += data[p] * rounded[i];
    green += data[p + 1] * rounded[i];
    blue += data[p + 2] * rounded[i];
  }
  // A clamped array keeps values in 0..255, as Pillow's clip8 does.
  out[at] = red >> PRECISION_BITS;
  out[at + 1] = green >> PRECISION_BITS;
  out[at + 2] = blue >> PRECISION_BITS;
}

/** torchvision's CenterCrop: black beside what is smaller, offsets rounded half to even. */
export function centerCrop({ data, width, height }, cropWidth, cropHeight) {
  const left = cropStart(width, cropWidth);
  const top = cropStart(height, cropHeight);
  const out = new Uint8Array(cropWidth * cropHeight * 3);
  for (let y = Math.max(0, -top); y < cropHeight && y + top < height; y++) {
    const x = Math.max(0, -left);
    const count = Math.min(cropWidth - x, width - (x + left));
    const start = ((y + top) * width + x + left) * 3;
    out.set(data.subarray(start, start + count * 3), (y * cropWidth + x) * 3);
  }
  return { data: out, width: cropWidth, height: cropHeight };
}

function cropStart(from, to) {
  if (to > from) return -Math.floor((to - from) / 2);
  const half = (from - to) / 2;
  return Number.isInteger(half) ? half : 2 * Math.round(half / 2);
}

/** Model input, float32 [3, height, width]: each step rounded to float32, as torchvision does it. */
export function normalize({ data, width, height }, { mean, std, colour_order: order }) {
  const area = width * height;
  const out = new Float32Array(3 * area);
  for (let plane = 0; plane < 3; plane++) {
    const channel = order === "BGR" ? 2 - plane : plane;
    const center = Math.fround(mean[channel]);
    const spread = Math.fround(std[channel]);
    const table = Float32Array.from({ length: 256 }, (_, value) =>
      Math.fround(Math.fround(Math.fround(value / 255) - center) / spread),
    );
    for (let i = 0; i < area; i++) {
      out[plane * area + i] = table[data[3 * i + channel]];
    }
  }
  return out;
}
