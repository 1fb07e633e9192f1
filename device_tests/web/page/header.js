// What an image file says before its pixels, for what browsers do not do alike: an orientation is
// applied to some formats only, and cannot be left out; some files have no one meaning.

const ORIENTATION = 0x0112;
const SHORT = 3;
const PNG = [0x89, 0x50, 0x4e, 0x47];
const START_OF_SCAN = 0xda;
const CMYK_CHANNELS = 4;
const RGB = 2; // PNG's colour type
const ALPHA = "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"; // of HEIF's and AVIF's second plane

/**
 * Read the header of an image file (Uint8Array).
 *
 * Returns { plain, orientation, bits, refusal }: the file without its EXIF orientation, that
 * orientation (1 to 8), bits a channel, and words where the file has no one meaning, else null.
 */
export function readHeader(bytes) {
  const header = { plain: bytes, orientation: 1, bits: 8, refusal: null };
  const starts = (...values) => values.every((value, index) => bytes[index] === value);
  if (starts(0xff, 0xd8)) readJpeg(bytes, header);
  else if (starts(...PNG)) readPng(bytes, header);
  else if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP") readWebp(bytes, header);
  else if (text(bytes, 4, 4) === "ftyp" && text(bytes, 0, 4096).includes(ALPHA)) {
    header.refusal = "is an AVIF with transparency, which browsers read differently";
  }
  return header;
}

function readJpeg(bytes, header) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let channels = 0;
  let adobe = false;
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at += 1; // padding
      continue;
    }
    if (marker === START_OF_SCAN) break;
    const start = at + 4;
    if (marker === 0xe1 && text(bytes, start, 6) === "Exif\0\0") setUpright(bytes, start + 6, header);
    adobe ||= marker === 0xee && text(bytes, start, 5) === "Adobe";
    const isFrame = (marker & 0xf0) === 0xc0 && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) channels = bytes[start + 5];
    at += 2 + view.getUint16(at + 2);
  }
  if (channels === CMYK_CHANNELS && !adobe) {
    header.refusal =
      "is a CMYK JPEG without Adobe's marker, which does not say whether its values are inverted";
  }
}

function readPng(bytes, header) {
  header.bits = bytes[24];
  const colourType = bytes[25];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 8; at + 8 <= bytes.length; ) {
    const end = at + 12 + view.getUint32(at);
    if (text(bytes, at + 4, 4) === "tRNS" && header.bits === 16 && colourType === RGB) {
      header.refusal = "is a 16-bit PNG with one transparent colour";
    }
    if (text(bytes, at + 4, 4) === "eXIf") {
      setUpright(bytes, at + 8, header);
      // Its checksum no longer holds, so it goes as a whole.
      header.plain = joined(bytes.subarray(0, at), bytes.subarray(end));
      return;
    }
    at = end;
  }
}

function readWebp(bytes, header) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    if (text(bytes, at, 4) === "EXIF") {
      const prefix = text(bytes, at + 8, 6) === "Exif\0\0" ? 6 : 0;
      setUpright(bytes, at + 8 + prefix, header);
      return;
    }
    at += 8 + size + (size % 2);
  }
}

/** Note the orientation in EXIF data that start at `start`, and set it to 1 in a copy. */
function setUpright(bytes, start, header) {
  const little = text(bytes, start, 2) === "II";
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  try {
    const directory = start + view.getUint32(start + 4, little);
    const entries = view.getUint16(directory, little);
    for (let entry = directory + 2; entry < directory + 2 + 12 * entries; entry += 12) {
      if (view.getUint16(entry, little) !== ORIENTATION) continue;
      if (view.getUint16(entry + 2, little) !== SHORT) return;
      const value = view.getUint16(entry + 8, little);
      if (value >= 1 && value <= 8) header.orientation = value;
      header.plain = bytes.slice();
      new DataView(header.plain.buffer).setUint16(entry + 8, 1, little);
      return;
    }
  } catch {
    // Broken EXIF data say nothing of the orientation.
  }
}

function text(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}

function joined(first, second) {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}
