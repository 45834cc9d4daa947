// What a user writes: the import, the demo model, the tag. `answers` and `?backend=` are for the test.
import { SiglipClassifier } from "siglip-web";
import "siglip-web/demo";
import "siglip-web/siglip-classifier";

async function classify() {
  const classifier = await SiglipClassifier.load("demo", { backend: new URLSearchParams(location.search).get("backend") ?? "auto" });
  const scores = await classifier.classify("ladybug.png", ["a ladybug", "a teapot", "a penguin"]);
  const { adapter, backendReason } = classifier.info;
  await classifier.dispose();
  return { scores, adapter, backendReason };
}

function listen(tag) {
  return new Promise((resolve, reject) => {
    tag.addEventListener("siglip-result", ({ detail }) => resolve(detail));
    tag.addEventListener("siglip-error", ({ detail }) => reject(detail));
  });
}

globalThis.answers = Promise.all([classify(), listen(document.querySelector("siglip-classifier"))]).then(([called, tag]) => ({ ...called, tag }));
