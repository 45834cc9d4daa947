/** SigLIP image classification, with any labels or with those of a fine-tuned model, inside a web page: on the visitor's GPU through WebGPU, or on the CPU. */

/**
 * Where a model comes from:
 * - `"demo"`: the small model that comes with the library, read from beside `siglip-web.js`;
 * - `"owner/name"` or `"owner/name@revision"`: a model of the Hugging Face Hub (revision: a branch, tag or commit; unless given `main`, or the
 *   commit that `files/pins.js` has with the sums of the model's files);
 * - an address that starts with `https://`, `/` or `./`: a folder with the files as the Hub has them. A relative one
 *   is resolved against the page; a query (`?token=…`) is sent with every file. `https://HOST/OWNER/NAME/resolve/REVISION/` is
 *   taken for a mirror of the Hub;
 * - the files of such a folder, or a handle to it.
 */
export type ModelSource = "demo" | (string & {}) | readonly File[] | FileList | FileSystemDirectoryHandle | ModelFiles;

/**
 * A model whose files have addresses of their own, as bundlers give them:
 * `{name: "mine", files: {"config.json": new URL("./mine/config.json", import.meta.url), …}}`.
 */
export interface ModelFiles {
  /** What messages and `info.name` call it. */
  readonly name?: string;
  /** The address of each file by its name in the model's folder. A file that isn't named isn't asked for. */
  readonly files: { readonly [file: string]: string | URL };
}

export interface LoadOptions {
  /** `"auto"` (default) takes WebGPU on a real GPU and the CPU otherwise; `info.backendReason` says why. */
  backend?: "auto" | "webgpu" | "cpu";
  /**
   * How weights are held: `"q8"` takes about a third of `"f32"`'s memory, `"q4"` a quarter, at a larger error. `"auto"` (default) takes what a converted
   * checkpoint was made for; otherwise `"f32"` for small models (up to 64 MB), `"q8"` on the CPU and `"f16"` on WebGPU.
   */
  dtype?: "auto" | "f32" | "f16" | "q8" | "q4";
  /**
   * For NaFlex models (`google/siglip2-base-patch16-naflex`), which see pictures in their own shape: how many patches one has at most, 1 to 1024. As
   * many as the model says unless given, which is 256; more show finer detail, and take longer.
   */
  maxPatches?: number;
  /** Called often while the model loads. What it throws is reported to the console and doesn't stop loading. */
  onProgress?: (event: ProgressEvent) => void;
  /** Stops loading, downloads included; `load` then rejects with code `"aborted"`. */
  signal?: AbortSignal;
  /**
   * Milliseconds that loading may take; it then rejects with code `"network"`, and what has been kept needn't come again. No limit unless
   * given: a connection that gives nothing for 30 seconds, or hardly anything, is given up and tried again eight times, and a server may
   * ask for five minutes' patience each time (`waiting` of the progress tells).
   */
  timeout?: number;
  /**
   * `true` (default) keeps the model in this browser, as it is held, tensor by tensor: a download that was broken off goes on
   * where it stopped, and a later load needs none. A model of the Hub is then taken as it was, without asking (name a newer
   * `@revision` or call `clearCache`); another folder is asked whether its files have changed. `info.cacheReason` tells how it
   * went; the demo model and files on disk aren't kept. `false` neither reads nor keeps anything.
   */
  cache?: boolean;
  /**
   * `true` (default) keeps with the model what its text tower made of labels and other texts, the last 2000 or so (some 6 MB of a base model), so that a
   * returning visitor's labels cost nothing; and the rows of the token table that they took (see `wholeTable`). No text is written, but the
   * hash of each, and which tokens there were: whoever can read the browser's files can test a guess. `false` neither reads nor keeps any of
   * that, nor does `cache: false`.
   */
  keepLabels?: boolean;
  /**
   * `false` (default): of a large token table (98 MB in SigLIP base, 786 MB in SigLIP 2 base) only the rows of the tokens in use are
   * fetched, when a text first has them, and kept; their server could tell from that which words they were. `true` downloads
   * it all while loading. Servers that know no ranges, and files on disk, give all they have in any case.
   */
  wholeTable?: boolean;
  /**
   * `true` (default) computes in a worker, so that the page stays responsive. `false` computes on the thread that
   * calls, and on no other; its WebAssembly memory can be used again after `dispose()`, but goes back only when the page is left.
   */
  worker?: boolean;
}

export interface ProgressEvent {
  /** Downloading files, putting weights on the device, the first run, done. Downloading and loading overlap. */
  stage: "download" | "load" | "warmup" | "ready";
  /** The file that `loaded` and `total` speak of. */
  file?: string;
  /** Bytes, for `"download"` and `"load"`. */
  loaded: number;
  /** Bytes, for `"download"` and `"load"`; 0 while not known. Of weights, those that are needed: a token table may stay where it is. */
  total: number;
  /** Whether the last of these bytes were kept in this browser. */
  fromCache?: boolean;
  /** A sentence on why nothing, or hardly anything, arrives for the moment: the connection or the server fails, or another tab loads the same model. */
  waiting?: string;
}

export interface ClassifyOptions {
  /** The sentence a label is put into, with `{}` once. Default `"This is a photo of {}."`; the embeddings of several are averaged. */
  template?: string | readonly string[];
  /**
   * `"sigmoid"`: how well each label fits on its own. `"softmax"`: the labels compete and add up to 1. Default: `info.scores`, as the model was
   * trained.
   */
  scores?: "sigmoid" | "softmax";
  /** Only the best so many. */
  topK?: number;
  /** Stops this call, waiting or running; it then rejects with code `"aborted"`, and the classifier stays usable. */
  signal?: AbortSignal;
  /** Called when the picture is embedded, then while labels are. What it throws is reported to the console and stops nothing. */
  onProgress?: (event: CallProgress) => void;
}

/** Labels that may change while a video is watched: a function is asked for them at every frame. */
export type WatchLabels = AnyLabels | null | undefined | (() => AnyLabels | null | undefined);

/** Words, or what `embedLabels` gave. */
export type AnyLabels = readonly string[] | LabelSet | LabelSetJSON;

export interface WatchOptions extends Omit<ClassifyOptions, "onProgress"> {
  /** Called with the results of a frame. What it throws is reported to the console and stops nothing. */
  onResult: (results: LabelScore[], frame: WatchedFrame) => void;
  /** Ends it: `watch` then resolves. */
  signal?: AbortSignal;
}

export interface WatchedFrame {
  /** Results a second, over the last few; 0 for the first. */
  framesPerSecond: number;
  /** Of the video, in seconds. */
  time: number;
}

/** How far a call has come. What was remembered counts as done. */
export interface CallProgress {
  /** What is counted: pictures, or labels (in all their templates). */
  stage: "images" | "labels";
  loaded: number;
  /** 0 where nobody knows how many come. */
  total: number;
}

/** What moved a label's logit for a picture, place by place. */
export interface HeatMap {
  /** Places from top to bottom, and from left to right: the model's patches. */
  rows: number;
  columns: number;
  /**
   * Row by row, in units of the logit, so that the maps of several labels compare: what the logit loses where the model doesn't look at this
   * place, and less at those around it (a Gaussian window, its standard deviation 0.8 places). Below zero what speaks against the label.
   */
  values: Float32Array;
}

/** How alike two embeddings are. */
export interface Similarity {
  /** Of the angle between them, −1 to 1. */
  cosine: number;
  /** `exp(logit_scale) * cosine + logit_bias`. */
  logit: number;
  /** The probability: `1 / (1 + exp(-logit))`. */
  score: number;
}

/**
 * Labels with the embeddings that one model's text tower gave them: made once by `embedLabels`, used for any number of pictures.
 * `JSON.stringify` writes it, and `classify` takes what `JSON.parse` or `structuredClone` (messages, IndexedDB) give back. The Rust
 * crate reads and writes the same JSON.
 */
export declare class LabelSet {
  constructor(parts: { model: string; labels: readonly string[]; templates: readonly string[]; embeddings: Float32Array });
  /** The `info.fingerprint` of the model that made it; another one refuses it. */
  readonly model: string;
  /** As they were given. */
  readonly labels: readonly string[];
  /** The sentences that they were put into. */
  readonly templates: readonly string[];
  /** The labels' unit vectors, averaged over the templates, one after the other: `labels.length * info.embeddingSize` numbers. */
  readonly embeddings: Float32Array;
  toJSON(): LabelSetJSON;
}

/** A `LabelSet` as JSON has it. `embeddings`: base64 of 32-bit numbers, lowest byte first. */
export interface LabelSetJSON {
  readonly model: string;
  readonly labels: readonly string[];
  readonly templates: readonly string[];
  readonly embeddings: string;
}

/** Pictures in anything that `for await` goes through, but the characters of a text: an array, a `FileList`, a generator. */
export type Images = (Iterable<ImageInput> | AsyncIterable<ImageInput>) & object;

export interface LabelScore {
  /** The label as it was given. */
  label: string;
  /** Between 0 and 1. */
  score: number;
  /** `exp(logit_scale) * cos(image, text) + logit_bias`, as in the reference; of a fine-tuned model its head's output. */
  logit: number;
}

export interface ModelInfo {
  readonly name: string;
  /**
   * As the Hub calls it: `"zero-shot-image-classification"` for a model that takes any labels; `"image-classification"` for one that was
   * fine-tuned (`SiglipForImageClassification`), which takes none but its own (`labels`) and has no embeddings.
   */
  readonly task: "zero-shot-image-classification" | "image-classification";
  /** What `ClassifyOptions.scores` is where it is left out: `"softmax"` for a fine-tuned model whose labels exclude each other. */
  readonly scores: "sigmoid" | "softmax";
  readonly backend: "webgpu" | "cpu";
  /** Why this backend, as a sentence. */
  readonly backendReason: string;
  /** The GPU's name, or what computes on the CPU, and with how many threads: on pages that are cross-origin isolated up to eight. */
  readonly adapter: string;
  readonly dtype: string;
  /** Pixels on a side that a picture is scaled to; of a NaFlex model, of a square one with as many patches as it was trained with. */
  readonly imageSize: number;
  /** The filter that it is scaled with, by Pillow's number: 2 is bilinear, 3 bicubic. */
  readonly resample: number;
  /** Pixels on a side of a patch. */
  readonly patchSize: number;
  /** Whether pictures keep their shape (NaFlex): they are scaled to at most `maxPatches`. Otherwise all become squares of `imageSize`. */
  readonly naflex: boolean;
  /** Patches of a picture, at most. */
  readonly maxPatches: number;
  /** Numbers in an embedding; 0 for a fine-tuned model, as the next, `logitScale` and `logitBias`. */
  readonly embeddingSize: number;
  /** Tokens of a text, padding included. */
  readonly contextLength: number;
  readonly parameters: number;
  /** The checkpoint's `logit_scale`: a cosine is multiplied by `exp(logitScale)`. */
  readonly logitScale: number;
  /** The checkpoint's `logit_bias`, added then. */
  readonly logitBias: number;
  /** Bytes that the weights take. */
  readonly bytes: number;
  /** Tells models apart by vectors of both towers, whatever `dtype` their weights are held as: what a `LabelSet` and an index are bound to. */
  readonly fingerprint: string;
  /** The labels of a fine-tuned model, or of a checkpoint that was converted for fixed ones: `classify` knows no others. */
  readonly labels?: readonly string[];
  /** Whether the whole model is kept in this browser. */
  readonly cached: boolean;
  /** How it is kept, or why not (no storage, a full disk…), as a sentence. */
  readonly cacheReason: string;
}

/** A model that is kept in this browser, whole or in part. */
export interface CachedModel {
  /** Its `info.name`: as the Hub calls it, the folder's name, or what was given with its files' addresses. */
  name: string;
  /** Address of the folder that it came from, or of its `config.json` where each file has an address of its own; without a query. */
  source: string;
  /** How its weights are held; `"auto-webgpu"` or `"auto-cpu"` before that was decided for this backend. */
  dtype: string;
  /** That it takes on the disk. */
  bytes: number;
  /** `false`: its download has not come to an end yet. */
  complete: boolean;
}

/**
 * A picture: an encoded file, an address to fetch one from (it must allow that: CORS), or pixels. EXIF orientation is
 * applied, alpha laid over white, 16-bit samples scaled to 8. It is taken as it is when the call is made, and
 * never changed, closed or detached.
 */
export type ImageInput =
  | Blob
  | File
  | ArrayBuffer
  | Uint8Array
  | string
  | HTMLImageElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | ImageBitmap
  | ImageData
  | VideoFrame
  | HTMLVideoElement
  | Response
  | URL;

export type SiglipErrorCode =
  | "bad-input"
  | "bad-image"
  | "bad-model"
  | "network"
  | "aborted"
  | "unsupported"
  | "out-of-memory"
  | "device-lost"
  | "disposed";

/** What everything here rejects with. */
export declare class SiglipError extends Error {
  constructor(code: SiglipErrorCode, message: string, options?: ErrorOptions);
  readonly name: "SiglipError";
  /** Stable, to branch on. `message` is for people: what was wrong, with which file or label, and what to do. */
  readonly code: SiglipErrorCode;
}

/** A loaded model. Calls may be made at any time; they run one after another, in the order they were made. */
export declare class SiglipClassifier {
  private constructor();

  /** Loads a model. Every classifier has its own worker and memory until `dispose()`. */
  static load(source: ModelSource, options?: LoadOptions): Promise<SiglipClassifier>;

  /**
   * How well each label fits the picture, best first. Labels that were asked about before cost no text tower run
   * again, and a picture that was given before no image tower run.
   * @param labels at least one; none blank, none twice, each of at most 1000 characters (a model reads only the first few dozen words);
   *   or what `embedLabels` gave, for many labels that are used often; left out or null for a model with labels of its own (`info.labels`)
   */
  classify(image: ImageInput, labels?: AnyLabels | null, options?: ClassifyOptions): Promise<LabelScore[]>;

  /**
   * The same for many pictures: `for await (const { index, results, error } of classifier.classifyMany(files, labels)) …`. Pictures are
   * taken from `images` a few at a time, when their turn comes, and what comes of each is given as it comes, in their order. A picture that
   * can't be used has an `error` and stops none of the others; what concerns them all (`"aborted"`, `"device-lost"`…) is thrown.
   */
  classifyMany(images: Images, labels?: AnyLabels | null, options?: ClassifyOptions):
    AsyncGenerator<{ index: number; results: LabelScore[]; error?: undefined } | { index: number; results?: undefined; error: SiglipError }, void>;

  /**
   * What in the picture moved a label's logit. It costs little more after `classify` of the same picture. Multiply by the label's probability before it is
   * shown, or an absent label seems to be somewhere.
   */
  explain(image: ImageInput, label: string, options?: { template?: string | readonly string[]; signal?: AbortSignal }): Promise<HeatMap>;

  /**
   * How well each label fits the newest frame of a video, again and again: of a camera, or of a film. Frames that come meanwhile are left
   * out, and nothing is done while the page is hidden or the video stands still. It resolves when `signal` or the video ends.
   */
  watch(video: HTMLVideoElement, labels: WatchLabels, options: WatchOptions): Promise<void>;

  /** The picture's embedding, `[info.embeddingSize]`, of unit length. */
  embedImage(image: ImageInput, options?: { signal?: AbortSignal }): Promise<Float32Array>;

  /** The embeddings of several pictures, in their order. They run through the model a few at a time. The first that can't be used ends it. */
  embedImages(images: Images, options?: { signal?: AbortSignal; onProgress?: (event: CallProgress) => void }): Promise<Float32Array[]>;

  /** As `classifyMany`: the embedding or the error of each picture as it comes. */
  embedMany(images: Images, options?: { signal?: AbortSignal; onProgress?: (event: CallProgress) => void }):
    AsyncGenerator<{ index: number; embedding: Float32Array; error?: undefined } | { index: number; embedding?: undefined; error: SiglipError }, void>;

  /**
   * Labels, put into one template or averaged over several, as a set that `classify` takes instead of them. Stopped and asked again, it goes on
   * where it was, as long as the labels' embeddings are remembered (32 MB of them).
   */
  embedLabels(labels: readonly string[], options?: { template?: string | readonly string[]; signal?: AbortSignal; onProgress?: (event: CallProgress) => void }): Promise<LabelSet>;

  /** Each text's embedding, `[info.embeddingSize]`, of unit length. Texts are taken as given: no template. */
  embedText(texts: readonly string[], options?: { signal?: AbortSignal }): Promise<Float32Array[]>;

  /** How alike two embeddings of this model are, usually a picture's and a text's. Two pictures compare by `cosine`. */
  similarity(a: Float32Array, b: Float32Array): Similarity;

  /** What is kept in this browser for pages of this origin, by name. */
  static caches(): Promise<CachedModel[]>;

  /**
   * Removes a model, in every dtype, by the text that `load` took it from, or by the `name` or `source` that `caches` lists; all models without. Waits some seconds for loads of it that run, and
   * rejects with code `"network"` while there still are any.
   * @returns bytes that were freed
   */
  static clearCache(name?: string): Promise<number>;

  /**
   * As the model runs now. When the computation crashes or the GPU is lost, the call that ran is rejected, and the model starts afresh for the
   * next one by itself: once more on the GPU, then on the CPU (`backendReason` says so). A crash on the CPU that follows another one at
   * once is the end; every call is then rejected, with code `"device-lost"` or `"out-of-memory"`.
   */
  readonly info: ModelInfo;

  /** Gives GPU and WebAssembly memory back and ends the worker. Calls that wait or run, and later ones, reject with code `"disposed"`. */
  dispose(): Promise<void>;
}
