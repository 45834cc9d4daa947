// Compiled, never run: what TypeScript users may write, and what must not pass.
import { LabelSet, SiglipClassifier, SiglipError } from "../../www/lib/siglip-web.js";
import type {
  CachedModel,
  CallProgress,
  ClassifyOptions,
  ImageInput,
  LabelScore,
  LabelSetJSON,
  LoadOptions,
  ModelInfo,
  ModelSource,
  ProgressEvent,
  SiglipErrorCode,
} from "../../www/lib/siglip-web.js";
import { SiglipIndex } from "../../www/lib/siglip-index.js";
import type { Added, Hit, IndexProgress, Query } from "../../www/lib/siglip-index.js";
import type { SiglipClassifierElement } from "../../www/lib/siglip-classifier.js";

declare const everyPicture: {
  blob: Blob;
  file: File;
  buffer: ArrayBuffer;
  bytes: Uint8Array;
  address: string;
  element: HTMLImageElement;
  canvas: HTMLCanvasElement;
  offscreen: OffscreenCanvas;
  bitmap: ImageBitmap;
  pixels: ImageData;
  frame: VideoFrame;
  video: HTMLVideoElement;
  response: Response;
  url: URL;
};
declare const directory: FileSystemDirectoryHandle;
declare const chosen: FileList;

export async function use(signal: AbortSignal): Promise<void> {
  const sources: ModelSource[] = ["demo", "google/siglip-base-patch16-224@main", "./models/mine/", [everyPicture.file], chosen, directory];
  const options: LoadOptions = { backend: "auto", dtype: "auto", signal, cache: true, wholeTable: false, worker: true, maxPatches: 512, onProgress };
  const classifier: SiglipClassifier = await SiglipClassifier.load(sources[0] ?? "demo", options);
  await SiglipClassifier.load("demo");

  const how: ClassifyOptions = { template: ["a photo of {}.", "{}"], scores: "softmax", topK: 3, signal };
  const pictures: ImageInput[] = Object.values(everyPicture);
  for (const picture of pictures) {
    const results: LabelScore[] = await classifier.classify(picture, ["a cat", "a dog"], how);
    const [best] = results;
    if (best) {
      const { label, score, logit }: { label: string; score: number; logit: number } = best;
      void [label, score, logit];
    }
    const embedding: Float32Array = await classifier.embedImage(picture, { signal });
    const several: Float32Array[] = await classifier.embedImages([picture, "cat.jpg"], { signal });
    const texts: Float32Array[] = await classifier.embedText(["a cat"], { signal });
    void [embedding, several, texts];
  }
  const own: LabelScore[] = await classifier.classify(everyPicture.file);
  const few: LabelScore[] = await classifier.classify(everyPicture.file, null, { topK: 3 });
  void [own, few];
  const labels = ["a cat", "a dog"] as const;
  const heard: CallProgress[] = [];
  const set: LabelSet = await classifier.embedLabels(labels, { template: ["{}", "a {}"] as const, signal, onProgress: (event) => heard.push(event) });
  const kept: LabelSetJSON = JSON.parse(JSON.stringify(set));
  await classifier.classify(everyPicture.file, structuredClone(set), how);
  async function* album(): AsyncGenerator<Blob> { yield everyPicture.blob; }
  for await (const { index, results, error } of classifier.classifyMany(album(), kept, { signal })) {
    const outcome: number | string = results ? results.length : error.code;
    void [index, outcome];
  }
  for await (const item of classifier.embedMany(chosen)) if (item.embedding) void classifier.similarity(item.embedding, set.embeddings).score;
  const info: ModelInfo = classifier.info;
  const numbers: number[] = [info.imageSize, info.patchSize, info.maxPatches, info.embeddingSize, info.contextLength, info.parameters, info.logitScale, info.logitBias, info.bytes];
  const words: string[] = [info.name, info.backend, info.backendReason, info.adapter, info.dtype, info.task, info.scores, ...(info.labels ?? [])];
  void [numbers, words];
  const caching: [boolean, string] = [info.cached, info.cacheReason];
  const caches: CachedModel[] = await SiglipClassifier.caches();
  const freed: number = (await SiglipClassifier.clearCache(caches[0]?.name)) + (await SiglipClassifier.clearCache());
  void [caching, freed];
  const nothing: void = await classifier.dispose();
  return nothing;
}

function onProgress({ stage, file, loaded, total, fromCache, waiting }: ProgressEvent): void {
  const known: "download" | "load" | "warmup" | "ready" = stage;
  const maybe: [string | undefined, boolean | undefined, string | undefined] = [file, fromCache, waiting];
  void [known, loaded / total, maybe];
}

export function tag(): void {
  const element: SiglipClassifierElement = document.createElement("siglip-classifier");
  element.labels = ["a cat", "a dog"];
  element.image = everyPicture.bitmap;
  element.image = null;
  element.addEventListener("siglip-result", ({ detail }) => void detail[0]?.score.toFixed(2));
  element.addEventListener("siglip-error", ({ detail }) => void explain(detail));
  element.addEventListener("siglip-progress", ({ detail }) => onProgress(detail));
  const result: LabelScore[] | null = element.result;
  void result;
}

export function explain(error: unknown): SiglipErrorCode | undefined {
  if (!(error instanceof SiglipError)) return undefined;
  const asError: Error = error;
  switch (error.code) {
    case "bad-input":
    case "bad-image":
    case "bad-model":
    case "network":
    case "aborted":
    case "unsupported":
    case "out-of-memory":
    case "device-lost":
    case "disposed":
      void asError.message;
      return error.code;
    default: {
      const none: never = error.code;
      return none;
    }
  }
}

export async function search(classifier: SiglipClassifier, dropped: DataTransfer, signal: AbortSignal): Promise<void> {
  const index: SiglipIndex = await SiglipIndex.open(classifier, { name: "holidays", signal });
  const told: IndexProgress[] = [];
  for (const source of [directory, chosen, dropped, [everyPicture.file]]) {
    const added: Added = await index.add(source, { onProgress: (event) => told.push(event), signal, gone: "keep" });
    void added.unreadable[0]?.code;
  }
  await index.add([{ id: "a", image: () => fetch("a.jpg"), modified: 1, size: 2 }]);
  const queries: Query[] = ["a car", everyPicture.file, { id: "a" }, ["a car", { text: "people", minus: true }], SiglipIndex.parse("a car -people")];
  for (const query of queries) {
    const hits: Hit[] = await index.search(query, { limit: 5, minScore: 0.1, template: "{}" });
    void hits[0]?.score;
  }
  const file: Blob = await index.export();
  const count: number = await index.import(file);
  void count;
}

export function refused(classifier: SiglipClassifier): void {
  // @ts-expect-error: made by open alone
  void new SiglipIndex();
  // @ts-expect-error: a picture to index has an id
  void (async (index: SiglipIndex) => index.add([{ image: everyPicture.file }]));
  // @ts-expect-error: a bare string is no list of labels
  void classifier.classify("cat.jpg", "a cat");
  // @ts-expect-error: no such kind of score
  void classifier.classify("cat.jpg", ["a cat"], { scores: "cosine" });
  // @ts-expect-error: no such backend
  void SiglipClassifier.load("demo", { backend: "webgl" });
  // @ts-expect-error: a number is no picture
  void classifier.embedImage(5);
  // @ts-expect-error: one picture is no list
  void classifier.embedImages("cat.jpg");
  // @ts-expect-error: made by load alone
  void new SiglipClassifier();
  // @ts-expect-error: the information is read only
  classifier.info = {} as ModelInfo;
}
