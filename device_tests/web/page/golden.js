// The golden samples that are served beside a model, and the answers on record for them.

import { evidenceForAnyClass } from "./model.js";

/**
 * Images of a golden folder at `url`, with the reference's logits for the file of that SHA-256.
 *
 * `scope` has the least evidence for any class of all labelled images, and their count.
 * Each image: { id, url, width, height, label (index or null), reference, float (logits or null) }.
 */
export async function loadGolden(url, sha256, fetched, { threshold }) {
  const content = await (await fetched(`${url}golden.json`, "golden.json")).json();
  const answers = Object.values(content.artefacts).find((answer) => answer.sha256 === sha256);
  const float = content.artefacts.float;
  const recorded = answers ?? float;
  const labelled = content.images.flatMap(({ label }, index) =>
    label === null || !recorded ? [] : [evidenceForAnyClass(recorded.logits[index])],
  );
  return {
    // The model was made for images such as the labelled ones; null: there are none on record, or
    // a logit that speaks for one label speaks against the other.
    scope: labelled.length && threshold === undefined ? { least: Math.min(...labelled), count: labelled.length } : null,
    images: content.images.map((image, index) => ({
      ...image,
      url: url + image.file,
      reference: answers?.logits[index] ?? null,
      float: float?.logits[index] ?? null,
    })),
    hasReference: Boolean(answers),
    whyNone: answers ? undefined : "The answers on record are those of another file.",
  };
}
