// The golden samples that are served beside a model, and the answers on record for them.

/**
 * Images of a golden folder at `url`, with the reference's logits for the file of that SHA-256.
 *
 * Each image: { id, url, width, height, label (index or null), reference, float (logits or null) }.
 */
export async function loadGolden(url, sha256, fetched) {
  const content = await (await fetched(`${url}golden.json`, "golden.json")).json();
  const answers = Object.values(content.artefacts).find((answer) => answer.sha256 === sha256);
  const float = content.artefacts.float;
  return {
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
