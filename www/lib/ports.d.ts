/** What the rooms of the library give each other; callers see `siglip-web.d.ts`. */
import type { CallProgress, ClassifyOptions, HeatMap, LabelScore, LoadOptions, ModelInfo, ProgressEvent } from "./siglip-web.js";

/** Where a model's files are. */
export type Place = RemotePlace | LocalPlace;
/**
 * `base`: the folder's address, with the query that every file is asked for with; or, where each file has an address of its own, one of these.
 * `inline`: files that are here already. `ours`: comes with the library.
 */
export type RemotePlace = { kind: "url"; base: string; hub?: Hub; addresses?: Map<string, string>; inline?: Map<string, File>; ours?: boolean };
/** `folder`: of Node.js. */
export type LocalPlace = { kind: "files"; files: Map<string, File> } | { kind: "directory"; handle: FileSystemDirectoryHandle } | { kind: "folder"; base: string };
/** The Hub's own, or a mirror's, origin; the model there. `sums`: the SHA-256 that files must have, where it is known. */
export type Hub = { origin: string; model: string; revision: string; sums?: { readonly [file: string]: string } };

/** As for the caller, but `"ready"`, which the caller's thread tells. */
export type Progress = Omit<ProgressEvent, "stage"> & { stage: "download" | "load" | "warmup" };
/** Told by the engine how much of a file it has, and whether the last of it was kept. */
export type Loaded = (file: string, loaded: number, total: number, fromCache: boolean) => void;

/** What tells one version of a file from another. */
export type Version = { etag?: string; modified?: string; size?: number };
export type WeightsVersion = Version & { sha256?: string; ranges?: boolean };

/** When to ask again, and when to give up. Times in milliseconds. `hurry` waits for nothing, for tests: what would be waited for is still told. */
export type RetryPolicy = { first: number; longest: number; tries: number; stall: number; hurry?: boolean };

/** What the downloads of one load share. */
export type Context = {
  /** Of the call under way; it changes from call to call. */
  signal: AbortSignal;
  /** How messages call the model. */
  name: string;
  /** Whether addresses are those of the Hugging Face Hub, or of a mirror of it. */
  hub: boolean;
  retryPolicy: RetryPolicy;
  /** Whether the browser's HTTP cache may keep a copy as well. */
  caching: RequestCache;
  /** Told why nothing arrives. */
  wait: (waiting: string) => void;
  /** Origins that this page could read something from. */
  readable: Set<string>;
};

// What the engine is given: the ports of src/web

/** A checkpoint's files. */
export type Source = {
  /** A small file of at most `limit` bytes. */
  readAll: (file: string, limit: number) => Promise<Uint8Array | undefined>;
  open: (file: string) => Promise<Reader | undefined>;
  /** What `readAll` gave so far could be parsed: only now it may be kept. */
  keep: () => Promise<void>;
  /** Something that `readAll` gave can't be parsed: drops what it gave from kept copies; whether there were any. */
  forget: () => Promise<boolean>;
};
/** An open file. `plan` takes `[offset, length, offset, length, …]`. */
export type Reader = {
  size?: number;
  ranges: boolean;
  sha256?: string;
  /** What tells this version of the file from others, once something was read: a commit, an ETag, a date. */
  validator?: string;
  plan: (reads: Float64Array) => void;
  readAt: (offset: number, length: number) => Promise<Uint8Array>;
  close: () => void;
};
/** Where the engine keeps tensors as it holds them. */
export type Store = {
  manifest: () => Promise<string | undefined>;
  get: (key: string) => Promise<Uint8Array | undefined>;
  put: (key: string, bytes: Uint8Array) => Promise<void>;
  /** Keeps nothing more; `problem` is why. */
  giveUp: (problem: string) => void;
  commit: (manifest: string) => Promise<void>;
};
/** Makes the GPU's pipelines of these texts (WGSL). */
export type Pipelines = { prepare: (device: GPUDevice, texts: string[]) => Promise<void> };
/** Starts the module that runs a tokenizer.json of any form. */
export type Tokenizers = { start: () => Promise<TokenizerModule> };
/** Throws what the `tokenizers` crate says of the file, or of a text. `steps`: JSON, what is done before the file's model. */
export type TokenizerModule = { open: (json: Uint8Array, steps: string) => TokenizerPipeline };
export type TokenizerPipeline = { ids: (text: string) => Uint32Array; free: () => void };
export type Cancel = { aborted: boolean };

// What it gives: src/web/mod.rs, through wasm-bindgen's glue

/** An encoded file, or all of its pixels. */
export type Picture = { bytes: Uint8Array } | { rgba: Uint8ClampedArray; width: number; height: number };
export type EngineOptions = { backend: Backend; backendReason: string; adapter: string; dtype: string; wholeTable: boolean; maxPatches?: number; name: string };
export type Backend = ModelInfo["backend"];
export type EngineClassifyOptions = Omit<ClassifyOptions, "signal" | "onProgress">;
/** Words, what came of them, or the model's own. */
export type Labels = string[] | LabelSetParts | undefined;
/** `embeddings`: one after the other. */
export type LabelSetParts = { model: string; labels: readonly string[]; templates: readonly string[]; embeddings: Float32Array };
export type Told = (stage: CallProgress["stage"], loaded: number, total: number) => void;

export type Engine = {
  /** `unused`: tensors of the files that the model has no use for. */
  readonly info: Omit<ModelInfo, "cached" | "cacheReason"> & { readonly unused?: readonly string[] };
  readonly stats: { imageRuns: number; textRuns: number };
  classify: (image: Picture, labels: Labels, options: EngineClassifyOptions, progress: Told, cancel: Cancel) => Promise<LabelScore[]>;
  classifyImages: (images: Picture[], labels: Labels, options: EngineClassifyOptions, progress: Told, cancel: Cancel) => Promise<LabelScore[][]>;
  explain: (image: Picture, label: string, options: Pick<EngineClassifyOptions, "template">, progress: Told, cancel: Cancel) => Promise<HeatMap>;
  embedImage: (image: Picture, progress: Told, cancel: Cancel) => Promise<Float32Array>;
  embedImages: (images: Picture[], progress: Told, cancel: Cancel) => Promise<Float32Array[]>;
  embedLabels: (labels: string[], options: Pick<EngineClassifyOptions, "template">, progress: Told, cancel: Cancel) => Promise<LabelSetParts>;
  embedText: (texts: string[], progress: Told, cancel: Cancel) => Promise<Float32Array[]>;
  dispose: () => void;
  free: () => void;
};
export type Glue = ((module: { module_or_path: WebAssembly.Module; memory?: WebAssembly.Memory }) => Promise<{ memory: WebAssembly.Memory }>) & {
  Engine: {
    load: (
      source: Source,
      store: Store | undefined,
      options: EngineOptions,
      pipelines: Pipelines,
      tokenizers: Tokenizers,
      progress: (stage: ProgressEvent["stage"], file: string | undefined, loaded: number, total: number, fromStore: boolean) => void,
      cancel: Cancel,
    ) => Promise<Engine>;
  };
  /** Of the module with threads. */
  startThreads?: (others: number) => void;
  runThread?: () => void;
};

/** Of src/web/search.rs. */
export type SearchGlue = {
  Search: new (size: number) => Search;
  soundLines: (log: Uint8Array) => Uint32Array;
  lineSum: (text: Uint8Array) => string;
  shrink: (picture: Uint8Array, side: number, resample: number) => Uint8Array;
};
export type Search = {
  readonly pipeline: number;
  readonly stride: number;
  readonly chunk: number;
  resize: (count: number) => void;
  address: (chunk: number) => number;
  set: (row: number, embedding: Float32Array) => number;
  row: (row: number) => Uint8Array;
  freeRow: (row: number) => void;
  sums: (first: number) => Float64Array;
  checksums: (embeddings: Float32Array) => Float64Array;
  ask: (words: Float32Array, minus: Uint8Array, pictures: Float32Array | undefined, scale: number, bias: number, limit: number) => Uint32Array;
  answer: (embeddings: Float32Array) => Float64Array;
};

/** Of src/tokenizer/module. */
export type TokenizersGlue = ((module: { module_or_path: WebAssembly.Module }) => Promise<object>) & {
  Pipeline: new (json: Uint8Array, steps: string) => TokenizerPipeline;
};

// Messages from the caller's thread to the worker

export type Request = LoadRequest | { method: "stats" } | { method: "dispose" } | Call;
/** What `METHODS` of worker/methods.js lists. */
export type Call =
  | { method: "classify"; image: Picture; labels: Labels; options: EngineClassifyOptions }
  | { method: "classifyImages"; images: Picture[]; labels: Labels; options: EngineClassifyOptions }
  | { method: "explain"; image: Picture; label: string; options: Pick<EngineClassifyOptions, "template"> }
  | { method: "embedImage"; image: Picture }
  | { method: "embedImages"; images: Picture[] }
  | { method: "embedLabels"; labels: string[]; options: Pick<EngineClassifyOptions, "template"> }
  | { method: "embedText"; texts: string[] };
export type LoadRequest = {
  method: "load";
  place: Place;
  name: string;
  /** What to add to an error about the model's files. */
  cure?: string;
  backend: NonNullable<LoadOptions["backend"]>;
  /** Why `backend` is the CPU, where the library chose it before. */
  reason?: string;
  dtype: NonNullable<LoadOptions["dtype"]>;
  maxPatches?: number;
  cache: boolean;
  keepLabels: boolean;
  wholeTable: boolean;
  retryPolicy?: Partial<RetryPolicy>;
  /** Why the engine is on another thread than was asked for. */
  note?: string;
};
export type Stats = { imageRuns: number; textRuns: number; memory?: number };

// Declarations beside the implementation

type Members<T> = { [K in keyof T]: T[K] extends (...given: infer A) => infer R ? (...given: A) => R : T[K] };
type Statics<C> = Members<Omit<C, "prototype">>;
type InstanceOf<C> = C extends { prototype: infer T } ? T : never;
/** Compiles only where class `Given` does what `Declared` promises. */
export type Implements<Declared, Given extends Statics<Declared> & { prototype: Members<InstanceOf<Declared>> }> = Given;
/** Compiles only where class `Given` has no public member that `Declared` doesn't name, `But` those that only a browser calls. */
export type NothingMore<None extends never> = None;
export type Undeclared<Declared, Given, But = never> = Exclude<keyof InstanceOf<Given> | keyof Given, keyof InstanceOf<Declared> | keyof Declared | But>;
