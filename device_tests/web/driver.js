// Runs inside the page: press "Check all" and remember the answers, for when it has finished.

() => {
  const answers = [];
  document.addEventListener("edge-vit:answer", ({ detail }) => answers.push(detail));
  document.getElementById("check").click();

  const base64 = (values) =>
    new Promise((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result.split(",")[1]);
      reader.readAsDataURL(new Blob([values]));
    });
  return {
    outcome: () => ({
      std: answers[0].contract.preprocessing.std,
      first_ms: answers[0].firstMs,
      runs_ms: answers.flatMap(({ runsMs }) => runsMs),
      logits: answers.map(({ logits }) =>
        Array.from(logits, (value) => (Number.isFinite(value) ? value : null)),
      ),
    }),
    inputs: () => Promise.all(answers.map(({ input }) => base64(input))),
  };
}
