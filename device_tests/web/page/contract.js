// What a model file says about itself: how to feed it and how to read its answer.

import { BinaryReader } from "./vendor/protobuf/wire/binary-encoding.js";
import { ModelError } from "./errors.js";
import { FILTERS, UPRIGHT } from "./preprocess.js";

const KEY = "edge_vit.contract";
const SCHEMA = 1;
const STEPS = [
  ...["size", "resize", "crop_pct", "crop_mode", "interpolation", "mean", "std", "colour_order"],
  ...["orientation", "background"], // written where they are not upright and white
];

// Field numbers of onnx.proto.
const MODEL_GRAPH = 7;
const MODEL_METADATA = 14;
const ENTRY_KEY = 1;
const ENTRY_VALUE = 2;

/** The contract inside an ONNX file (Uint8Array); throws ModelError if this page cannot keep it. */
export function readContract(bytes, name) {
  const metadata = readMetadata(bytes, name);
  if (!metadata.has(KEY)) {
    throw new ModelError(
      `${name} has no contract.`,
      `Its metadata lack “${KEY}”, so nothing says how to prepare an image for it. ` +
        "Serve a file that edge-vit exported.",
    );
  }
  let contract;
  try {
    contract = JSON.parse(metadata.get(KEY));
  } catch (error) {
    throw new ModelError(
      `The contract of ${name} is not JSON (${error.message}).`,
      "Export the model again with edge-vit.",
    );
  }
  const unknown = unknownParts(contract);
  if (unknown.length) {
    throw new ModelError(
      `This page does not know the contract of ${name}: ${unknown.join("; ")}.`,
      "Serve the page of the edge-vit version that exported the model.",
    );
  }
  return contract;
}

function readMetadata(bytes, name) {
  const metadata = new Map();
  let hasGraph = false;
  try {
    const model = new BinaryReader(bytes);
    while (model.pos < model.len) {
      const [field, wireType] = model.tag();
      if (field === MODEL_METADATA) {
        const [key, value] = readEntry(model.bytes());
        metadata.set(key, value);
      } else {
        hasGraph ||= field === MODEL_GRAPH;
        model.skip(wireType, field);
      }
    }
  } catch (error) {
    throw damaged(name, `${error.message} at byte ${bytes.length}`);
  }
  if (!hasGraph) {
    throw damaged(name, "there is no graph in it");
  }
  return metadata;
}

function damaged(name, detail) {
  return new ModelError(
    `${name} is damaged or no ONNX model (${detail}).`,
    "Fetch it again, and compare it with SHA256SUMS of the release.",
  );
}

function readEntry(bytes) {
  const entry = new BinaryReader(bytes);
  const texts = {};
  while (entry.pos < entry.len) {
    const [field, wireType] = entry.tag();
    if (field === ENTRY_KEY || field === ENTRY_VALUE) {
      texts[field] = entry.string();
    } else {
      entry.skip(wireType, field);
    }
  }
  return [texts[ENTRY_KEY], texts[ENTRY_VALUE]];
}

/** What this page cannot do, in words; empty if it knows every part. */
function unknownParts(contract) {
  if (contract?.schema !== SCHEMA) {
    return [`its schema is ${contract?.schema}, this page reads ${SCHEMA}`];
  }
  const steps = contract.preprocessing ?? {};
  const unknown = [];
  const expect = (where, value, known) => {
    if (!known.includes(value)) {
      unknown.push(`${where} is ${JSON.stringify(value)}, this page knows ${known.join(", ")}`);
    }
  };
  expect("layout", contract.layout, ["NCHW"]);
  expect("dtype", contract.dtype, ["float32"]);
  expect("output", contract.output, ["logits"]);
  expect("activation", contract.activation ?? "softmax", ["softmax", "sigmoid"]);
  expect("interpolation", steps.interpolation, Object.keys(FILTERS));
  expect("crop_mode", steps.crop_mode, ["center", "squash"]);
  expect("colour_order", steps.colour_order, ["RGB", "BGR"]);
  expect("orientation", steps.orientation ?? UPRIGHT, [UPRIGHT, "stored"]);
  for (const key of Object.keys(steps).filter((key) => !STEPS.includes(key))) {
    unknown.push(`it has a step ${key}`);
  }

  const isSize = (value) => Number.isInteger(value) && value > 0;
  const isColour = (value) =>
    value?.length === 3 && value.every((part) => Number.isInteger(part) && part >= 0 && part < 256);
  const isTriple = (value) => value?.length === 3 && value.every(Number.isFinite);
  if (!(steps.size?.length === 2 && isSize(steps.size[0]) && steps.size[0] === steps.size[1])) {
    unknown.push(`size is ${JSON.stringify(steps.size)}, this page knows squares`);
  }
  if (!isSize(steps.resize)) {
    unknown.push(`resize is ${JSON.stringify(steps.resize)}, not a number of pixels`);
  }
  if (!isTriple(steps.mean) || !isTriple(steps.std) || steps.std.includes(0)) {
    unknown.push("mean and std are not three numbers each");
  }
  if (steps.background !== undefined && !isColour(steps.background)) {
    unknown.push(`background is ${JSON.stringify(steps.background)}, not a colour`);
  }
  if (!Array.isArray(contract.labels) || contract.labels.length === 0) {
    unknown.push("it names no labels");
  }
  const { activation = "softmax", threshold } = contract;
  const isShare = Number.isFinite(threshold) && threshold > 0 && threshold < 1;
  if (activation === "sigmoid" ? !isShare || contract.labels?.length !== 2 : threshold !== undefined) {
    unknown.push(`its threshold ${threshold} does not go with ${activation} and its labels`);
  }
  return unknown;
}
