// A model in ONNX Runtime Web, and what is said about its answers.

import * as ort from "./vendor/onnxruntime/ort.wasm.min.mjs";
import { readContract } from "./contract.js";
import { ModelError } from "./errors.js";
import { decode, geometry, normalize } from "./preprocess.js";

const RUNS = 5;
const SHOWN = 5;

// One thread, as all latencies of edge-vit are measured.
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

export const RUNTIME = `ONNX Runtime Web ${ort.env.versions.web}`;

export class Model {
  /** Read the contract of an ONNX file (Uint8Array) and load it; throws ModelError. */
  static async load(bytes, name) {
    const model = new Model();
    model.contract = readContract(bytes, name);
    const started = performance.now();
    try {
      model.session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    } catch (error) {
      throw new ModelError(
        `${RUNTIME} cannot load ${name}: ${error.message}`,
        "Fetch it again and compare it with SHA256SUMS of the release; try another browser.",
      );
    }
    model.loadMs = performance.now() - started;
    model.firstMs = null;
    return model;
  }

  /**
   * Answer an image file (Blob): logits, what the model saw, and times in milliseconds.
   *
   * The first inference after loading is timed apart: it prepares weights.
   */
  async answer(blob, name, runs = RUNS) {
    const image = await decode(blob, name, this.contract.preprocessing);
    const started = performance.now();
    const seen = geometry(image, this.contract.preprocessing);
    const input = normalize(seen, this.contract.preprocessing);
    const preprocessingMs = performance.now() - started;
    const runsMs = [];
    let logits;
    try {
      if (this.firstMs === null) {
        [, this.firstMs] = await this.#run(input);
      }
      for (let run = 0; run < runs; run++) {
        const [values, ms] = await this.#run(input);
        logits = values;
        runsMs.push(ms);
      }
    } catch (error) {
      throw new ModelError(
        `${RUNTIME} cannot run the model: ${error.message}`,
        "Reload the page; if that does not help, try another browser.",
      );
    }
    return { image, seen, input, logits, preprocessingMs, firstMs: this.firstMs, runsMs };
  }

  async #run(input) {
    const { input_name: inputName, output_name: outputName, preprocessing } = this.contract;
    const tensor = new ort.Tensor("float32", input, [1, 3, ...preprocessing.size]);
    const started = performance.now();
    const outputs = await this.session.run({ [inputName]: tensor });
    const ms = performance.now() - started;
    const logits = Float32Array.from(outputs[outputName].data);
    const asked = countOutputs(this.contract);
    if (logits.length !== asked) {
      throw new Error(`it gives ${logits.length} logits, its contract asks for ${asked}`);
    }
    return [logits, ms];
  }
}

/** How many logits a model gives: one of each label, or with a threshold one for two labels. */
const countOutputs = ({ labels, threshold }) => (threshold === undefined ? labels.length : 1);

/** The five best labels, best first: [{ label, probability }]. */
export function topLabels(logits, contract) {
  const { labels, threshold } = contract;
  const values = threshold === undefined ? logits : [0, logits[0]]; // whose softmax is a sigmoid
  const highest = Math.max(...values);
  const powers = Array.from(values, (value) => Math.exp(value - highest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return ranking(logits, contract)
    .slice(0, SHOWN)
    .map((index) => ({ label: labels[index], probability: powers[index] / sum }));
}

/** How much speaks for any class at all: the log of the sum of exp(logit), an energy score (Liu et al. 2020). */
export function evidenceForAnyClass(logits) {
  const highest = Math.max(...logits);
  const sum = logits.reduce((total, value) => total + Math.exp(value - highest), 0);
  return highest + Math.log(sum);
}

/** Classes by their logits, highest first; of equal ones the lower class. */
export function ranking(logits, { threshold }) {
  // With one sigmoid logit the first label has that of the threshold.
  const values =
    threshold === undefined ? logits : [Math.log(threshold / (1 - threshold)), logits[0]];
  return Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);
}

/** Signal to quantization noise ratio in decibels; infinite if equal. */
export function sqnrDb(reference, logits) {
  let signal = 0;
  let noise = 0;
  reference.forEach((value, index) => {
    signal += value ** 2;
    noise += (value - logits[index]) ** 2;
  });
  return 10 * Math.log10(signal / noise);
}

export function median(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
