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
  const options: LoadOptions = { backend: "auto", dtype: "auto", signal, cache: true, wholeTable: false, worker: true, onProgress };
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
  const numbers: number[] = [info.imageSize, info.patchSize, info.embeddingSize, info.contextLength, info.parameters, info.logitScale, info.logitBias, info.bytes];
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

export function refused(classifier: SiglipClassifier): void {
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
