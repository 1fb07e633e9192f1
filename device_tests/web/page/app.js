// The page: what a person does, and what is shown.
//
// Every answer is also an event, `edge-vit:answer`, for programs that drive the page;
// `edge-vit:problem` carries what is shown when something goes wrong.

import { ModelError, PageError } from "./errors.js";
import { loadGolden } from "./golden.js";
import {
  Model,
  RUNTIME,
  evidenceForAnyClass,
  median,
  ranking,
  sqnrDb,
  topLabels,
} from "./model.js";

// Measured: right pixels give 36 dB or more on every golden image in Chromium; over all of them,
// bilinear for bicubic gives 21 dB, another crop 9 dB.
const AGREES_DB = 30;
const RUNS_IN_CHECK = 2;
const CLASSES_SHOWN = 10;
const OWN_IMAGE = "This image is your own; only the samples have answers on record.";

const element = (id) => document.getElementById(id);
const plural = (count, word) =>
  `${count} ${word}${count === 1 ? "" : word.endsWith("s") ? "es" : "s"}`;
const milliseconds = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
const decibels = (value) => (value === Infinity ? "every digit equal" : `${value.toFixed(1)} dB`);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

let model;
let golden;
let job = 0; // the latest thing asked for; older ones stop

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function tell(name, detail) {
  document.dispatchEvent(new CustomEvent(`edge-vit:${name}`, { detail }));
}

// Lets the browser paint, since inference keeps this thread busy.
const breathe = () => new Promise((resolve) => setTimeout(resolve));

// ---- Loading ---------------------------------------------------------------------------------

async function fetched(url, what) {
  const advice = "Check that the server of this page still runs, then reload.";
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new PageError(`${what} cannot be fetched.`, advice);
  }
  if (!response.ok) {
    throw new PageError(`${what} cannot be fetched (HTTP status ${response.status}).`, advice);
  }
  return response;
}

async function start() {
  element("limit").textContent = AGREES_DB;
  element("runtime").textContent = RUNTIME;
  try {
    const site = await (await fetched("site.json", "The list of what is served")).json();
    const response = await fetched(site.model.url, "The model");
    const bytes = new Uint8Array(await response.arrayBuffer());
    model = await Model.load(bytes, site.model.name);
    const sha256 = await hash(bytes);
    golden = site.golden && (await loadGolden(site.golden, sha256, fetched, model.contract));
    showModel(site.model.name, bytes.length, sha256);
    showSamples();
    state("ready", "Model ready");
  } catch (error) {
    model = undefined;
    element("file").disabled = true;
    state(error instanceof ModelError ? "refused" : "failed", "No model");
    element("waiting").textContent = "There is no model to ask.";
    problem(error);
  }
}

async function hash(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function state(name, words) {
  document.documentElement.dataset.state = name;
  const chip = element("model-state");
  chip.textContent = words;
  chip.dataset.kind = { ready: "good", failed: "bad", refused: "bad" }[name] ?? "busy";
}

function showModel(name, size, sha256) {
  const { name: modelName, version, preprocessing: steps, artefact, labels } = model.contract;
  const resized = steps.crop_mode === "squash" ? "both sides" : "shorter side";
  const facts = {
    Name: `${modelName}, version ${version}`,
    File: `${name}, ${(size / 1e6).toFixed(1)} MB`,
    "SHA-256": sha256,
    Quantization: artefact?.quantization ?? "not stated",
    Labels: `${labels.length}`,
    "Image becomes":
      `${resized} ${steps.resize} pixels (${steps.interpolation}), ` +
      `centre ${steps.size.join(" × ")}, ${steps.colour_order}`,
    Normalised: `mean ${steps.mean.join(", ")}; deviation ${steps.std.join(", ")}`,
    Runtime: `${RUNTIME}, loaded in ${milliseconds(model.loadMs)}`,
  };
  element("facts").replaceChildren(
    ...Object.entries(facts).map(([term, value]) =>
      make("div", {}, make("dt", { textContent: term }), make("dd", { textContent: value })),
    ),
  );
  element("model").dataset.loadMs = model.loadMs;
  element("model").hidden = false;
}

// ---- Samples ---------------------------------------------------------------------------------

function showSamples() {
  if (!golden) {
    element("samples").append(
      make("p", {
        className: "note",
        textContent: "No golden samples are served with this model.",
      }),
    );
    return;
  }
  const all = golden.images.length;
  const button = make("button", { type: "button", id: "check", textContent: `Check all ${all}` });
  button.addEventListener("click", checkAll);
  const groups = [
    ["With a label", golden.images.filter((image) => image.label !== null)],
    ["Without a label, of many sizes", golden.images.filter((i) => i.label === null)],
  ].filter(([, images]) => images.length);
  element("samples").append(
    make("div", { className: "row" }, make("h3", { textContent: "Samples" }), button),
    make("p", {
      className: "note",
      textContent: "Their answers are on record. Arrow keys move between them.",
    }),
    ...groups.map(([legend, images]) =>
      make(
        "fieldset",
        {},
        make("legend", { textContent: legend }),
        make("div", { className: "strip" }, ...images.map(sampleChoice)),
      ),
    ),
  );
}

function sampleChoice(image) {
  const radio = make("input", { type: "radio", name: "sample", value: image.id });
  radio.addEventListener("change", () => pickSample(image));
  radio.addEventListener("keydown", (event) => {
    if (event.key === "Enter") radio.click();
  });
  const caption = model.contract.labels[image.label] ?? `${image.width} × ${image.height}`;
  return make(
    "label",
    { className: "sample", title: image.id },
    radio,
    make("img", {
      src: image.url,
      alt: image.id,
      width: 72,
      height: 72,
      className: image.width < 72 ? "tiny" : "",
    }),
    make("span", { textContent: caption }),
  );
}

function pickSample(image) {
  return ask(async (current) => {
    const answer = await answerSample(image);
    if (current()) announce(answer.words);
  });
}

async function answerSample(image, runs) {
  const blob = await (await fetched(image.url, image.id)).blob();
  const answer = await model.answer(blob, image.id, runs);
  const agreement = compare(image, answer.logits);
  const words = showAnswer(image.id, answer, agreement ?? golden.whyNone, image.label);
  tell("answer", { id: image.id, agreement, contract: model.contract, ...answer });
  return { id: image.id, agreement, reference: image.reference, words, ...answer };
}

function checkAll() {
  unpickSamples();
  return ask(async (current) => {
    const all = golden.images.length;
    const answers = [];
    for (const image of golden.images) {
      if (!current()) return;
      state("busy", `Checking ${answers.length + 1} of ${all}`);
      answers.push(await answerSample(image, RUNS_IN_CHECK));
      await breathe();
    }
    showCheck(answers);
    announce(`${element("verdict-heading").textContent}. ${element("verdict-detail").textContent}`);
  });
}

function unpickSamples() {
  for (const radio of document.querySelectorAll("input[name=sample]:checked")) {
    radio.checked = false;
  }
}

// ---- Images of one's own ---------------------------------------------------------------------

function pickFile(file) {
  unpickSamples();
  return ask(async (current) => {
    const answer = await model.answer(file, file.name);
    const words = showAnswer(file.name, answer, OWN_IMAGE, null);
    tell("answer", { id: file.name, agreement: null, contract: model.contract, ...answer });
    if (current()) announce(words);
  });
}

function drop(event) {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) {
    pickFile(file);
  } else {
    problem(
      new PageError("What was dropped is no file.", "Save the image first, then drop the file."),
    );
  }
}

// ---- Answers ---------------------------------------------------------------------------------

let last = start();

/** Do one thing after another; what was asked for before the latest does not start. */
function ask(work) {
  const mine = ++job;
  const current = () => mine === job;
  last = last.then(async () => {
    if (!current() || !model) return;
    problem(null);
    element("answer").setAttribute("aria-busy", "true");
    state("busy", "Working");
    await breathe();
    try {
      await work(current);
    } catch (error) {
      problem(error);
    }
    element("answer").removeAttribute("aria-busy");
    state("ready", "Model ready");
  });
  return last;
}

function compare(image, logits) {
  if (!image.reference) return null;
  const db = sqnrDb(image.reference, logits);
  const best = (values) => ranking(values, model.contract)[0];
  const sameBest = best(image.reference) === best(logits);
  return {
    db,
    sameBest,
    agrees: sameBest && db >= AGREES_DB,
    floatDb: image.float && sqnrDb(image.float, logits),
  };
}

/** Show an answer, and how it compares or (a text) why it cannot; returns it in a few words. */
function showAnswer(name, answer, agreement, label) {
  const { labels } = model.contract;
  const best = topLabels(answer.logits, model.contract);
  const { image, seen } = answer;
  showResult("one");
  element("best").replaceChildren(
    make("span", { textContent: best[0].label }),
    " ",
    make("span", { className: "share", textContent: percent(best[0].probability) }),
  );
  const about = [`${name}, ${image.width} × ${image.height} pixels.`];
  if (label !== null) {
    const right = labels[label] === best[0].label;
    about.push(`Its label is ${labels[label]}: the model is ${right ? "right" : "wrong"}.`);
  }
  element("about-image").textContent = about.join(" ");
  const scope = showScope(answer.logits, label);
  showSeen(seen, name);
  element("labels").replaceChildren(...best.map(labelRow));
  showTimes([answer]);
  showAgreement(agreement);
  return (
    `${best[0].label}, ${percent(best[0].probability)}. ` +
    (scope ? `${scope} ` : "") +
    `${element("verdict-heading").textContent}. ` +
    `Median of ${plural(answer.runsMs.length, "run")} ${milliseconds(median(answer.runsMs))}.`
  );
}

/** Say which classes there are, and (returned, too) when the image is probably of none of them. */
function showScope(logits, label) {
  const { labels } = model.contract;
  const scope = golden?.scope;
  const evidence = evidenceForAnyClass(logits);
  const outside = label === null && Boolean(scope) && evidence < scope.least;
  const warning = outside
    ? `Probably none of this model's ${plural(labels.length, "class")}: less speaks for any of ` +
      `them (${evidence.toFixed(1)}) than in each of the ${scope.count} labelled samples ` +
      `(${scope.least.toFixed(1)} or more).`
    : "";
  element("outside").textContent = warning;
  element("outside").hidden = !outside;
  const named = labels.slice(0, CLASSES_SHOWN).join(", ");
  const more = labels.length - CLASSES_SHOWN;
  element("classes").textContent =
    `This model knows only ${named}${more > 0 ? ` and ${more} more classes` : ""}. ` +
    "An image of anything else gets one of these answers, too.";
  return warning;
}

function showResult(kind) {
  element("waiting").hidden = true;
  element("result").hidden = false;
  element("result").dataset.kind = kind;
}

function showTimes(answers) {
  const [{ firstMs }] = answers;
  element("median").textContent = milliseconds(median(answers.flatMap(({ runsMs }) => runsMs)));
  element("first").textContent = milliseconds(firstMs);
  const preparing = answers.map(({ preprocessingMs }) => preprocessingMs);
  element("preparing").textContent = milliseconds(median(preparing));
}

/** Show how the answers to all samples compare with the reference. */
function showCheck(answers) {
  const all = answers.length;
  showResult("check");
  element("best").textContent = `${all} samples checked`;
  element("about-image").textContent = "Times are those of all of them.";
  showTimes(answers);
  if (!golden.hasReference) {
    verdict("none", "There is no reference", golden.whyNone);
    return;
  }
  const sameBest = answers.filter(({ agreement }) => agreement.sameBest).length;
  const db = sqnrDb(
    answers.flatMap(({ reference }) => reference),
    answers.flatMap(({ logits }) => Array.from(logits)),
  );
  const agrees = db >= AGREES_DB && sameBest === all;
  const furthest = answers.reduce((a, b) => (b.agreement.db < a.agreement.db ? b : a));
  verdict(
    agrees ? "good" : "bad",
    agrees ? `All ${all} samples agree with the reference` : "Does not agree with the reference",
    `${decibels(db)} SQNR over all of them, same best label for ${sameBest} of ${all}. ` +
      `Furthest is ${furthest.id} with ${decibels(furthest.agreement.db)}.`,
  );
}

function showAgreement(agreement) {
  if (typeof agreement === "string") {
    verdict("none", "There is no reference", agreement);
    return;
  }
  const { agrees, db, sameBest, floatDb } = agreement;
  const near = db === Infinity ? "Every digit is that of the reference" : `${decibels(db)} SQNR`;
  verdict(
    agrees ? "good" : "bad",
    agrees ? "Agrees with the reference" : "Does not agree with the reference",
    `${near}, ${sameBest ? "same" : "another"} best label.` +
      (floatDb ? ` Against the float model ${decibels(floatDb)}.` : ""),
  );
}

function verdict(kind, heading, detail) {
  element("verdict").dataset.kind = kind;
  element("verdict-heading").textContent = heading;
  element("verdict-detail").textContent = detail;
}

function labelRow({ label, probability }) {
  const bar = make("span", { className: "bar" }, make("span"));
  bar.ariaHidden = "true";
  bar.firstChild.style.width = percent(probability);
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, label, bar),
    make("td", { textContent: percent(probability) }),
  );
}

function showSeen({ data, width, height }, name) {
  const canvas = element("seen");
  canvas.width = width;
  canvas.height = height;
  canvas.ariaLabel = `What the model sees of ${name}`;
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    image.data[to] = data[from];
    image.data[to + 1] = data[from + 1];
    image.data[to + 2] = data[from + 2];
    image.data[to + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Say what came out, and bring it into view. */
function announce(words) {
  element("announcement").textContent = words;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element("verdict").scrollIntoView({ block: "nearest", behavior: still ? "instant" : "smooth" });
}

/** Show an error, or none (null). */
function problem(error) {
  const box = element("problem");
  if (!error) {
    box.replaceChildren();
    return;
  }
  const known = error instanceof PageError;
  const what = known ? error.what : `The page failed: ${error.message}`;
  const advice = known ? error.advice : "Reload it; if it fails again, report this message.";
  element("announcement").textContent = "";
  element("result").hidden = true;
  element("waiting").hidden = false;
  box.replaceChildren(
    make("p", { className: "problem" }, make("strong", { textContent: what }), ` ${advice}`),
  );
  tell("problem", `${what} ${advice}`);
  box.scrollIntoView({ block: "nearest" });
}

// ---- Wiring ----------------------------------------------------------------------------------

element("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) pickFile(file);
  event.target.value = ""; // so that the same file can be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", drop);
