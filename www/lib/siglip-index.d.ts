/** Search over many pictures: by words, by pictures, by both. Kept in this browser; nothing is sent anywhere. */
import type { ImageInput, SiglipClassifier, SiglipErrorCode } from "./siglip-web.js";

export interface OpenOptions {
  /** Of the index, for those who keep several. Default `"pictures"`. */
  name?: string;
  /** `true` keeps nothing in this browser: the index is gone with the page, unless it is exported. */
  memory?: boolean;
  /** `true` where there is an index of this name by another model: gives that one up, and begins an empty one of this model. */
  again?: boolean;
  signal?: AbortSignal;
}

/** One picture to be indexed. */
export interface IndexItem {
  /** What the picture is known by: its path, its address, a number of yours as text. At most 4096 characters. */
  id: string;
  /** The picture, or a function that gets it: asked only where the picture is new or has changed. */
  image: ImageInput | (() => ImageInput | Promise<ImageInput>);
  /** When it was changed last, in milliseconds as of `Date.now()`. */
  modified?: number;
  /** Bytes. A picture whose id, size and time are those in the index isn't embedded again; without size and time, one whose id is there. */
  size?: number;
}

/**
 * Where pictures come from:
 * - a folder: a `FileSystemDirectoryHandle`, a dropped `FileSystemDirectoryEntry`, the files of `<input webkitdirectory>`. Ids are paths that begin with
 *   the folder's name (`Holidays/2024/beach.jpg`), the same whichever way it was given. Only files that look like pictures are taken. Pictures of
 *   this folder that are in the index and no longer in the folder are dropped from it;
 * - what was dropped, `event.dataTransfer`: folders and files;
 * - files, entries or handles, in an array or a `FileList`: ids are names;
 * - anything else that `for await` goes through, of `IndexItem`s. They are taken a few at a time.
 */
export type IndexSource =
  | FileSystemDirectoryHandle
  | FileSystemEntry
  | DataTransfer
  | FileList
  | readonly (File | FileSystemHandle | FileSystemEntry)[]
  | Iterable<IndexItem>
  | AsyncIterable<IndexItem>;

export interface AddOptions {
  /** Called now and then. What it throws is reported to the console and stops nothing. */
  onProgress?: (event: IndexProgress) => void;
  /** Stops it: `add` then rejects with code `"aborted"`, and what has been indexed stays. */
  signal?: AbortSignal;
  /** What becomes of pictures that are in the index and weren't given. Default: `"drop"` for those of a folder that was given whole, else `"keep"`. `"drop"` for other sources drops all that weren't given. */
  gone?: "drop" | "keep";
}

export interface IndexProgress {
  /** Pictures that are done: unchanged, indexed or unreadable. */
  done: number;
  /** Pictures in all; 0 while not known. Of a folder, those found so far. */
  total: number;
  /** Whether `total` is final. */
  counted: boolean;
  /** Of `done`: new and changed ones that were embedded. */
  added: number;
  /** Of `done`: those that were in the index as they are. */
  unchanged: number;
  /** Of `done`. */
  unreadable: number;
  /** Pictures embedded a second, over the last few; 0 at first. */
  perSecond: number;
  /** Seconds to go; undefined while nobody knows. */
  secondsLeft?: number;
  /** The picture that was done last. */
  id?: string;
  /** Whether `pause` holds it. */
  paused: boolean;
  /** A sentence on why it waits: another tab indexes here. */
  waiting?: string;
}

/** A picture that can't be indexed, and why. */
export interface Unreadable {
  id: string;
  code: SiglipErrorCode;
  message: string;
}

/** What came of `add`. */
export interface Added {
  /** New and changed pictures that were embedded. */
  added: number;
  /** Pictures that were in the index as they are. */
  unchanged: number;
  /** Pictures that were dropped, as they are gone from their folder. */
  removed: number;
  /** Files of the folder that don't look like pictures. */
  skipped: number;
  /** Unreadable pictures, those of earlier times that are as they were among them. */
  unreadable: Unreadable[];
}

/** A part of a query: one of `text`, `image`, `id`. */
export interface QueryTerm {
  /** Words, put into the template. */
  text?: string;
  /** A picture. */
  image?: ImageInput;
  /** A picture in the index. */
  id?: string;
  /** `true`: pictures that this describes, or that are like this, come last. */
  minus?: boolean;
}

/**
 * What to look for:
 * - words: `"a red car"`;
 * - a picture: anything that `classify` takes but an address as a string, which is words (`new URL(…)` is a picture);
 * - a picture in the index: `{ id: "Holidays/beach.jpg" }`, more like this;
 * - several of these in an array, to be met together, some of them as `{ text: "people", minus: true }`. `SiglipIndex.parse("beach -people")` makes one of what a person typed.
 */
export type Query = string | Exclude<ImageInput, string> | QueryTerm | readonly (string | Exclude<ImageInput, string> | QueryTerm)[];

export interface SearchOptions {
  /** At most so many hits. Default 100. */
  limit?: number;
  /** Only hits with at least this score, 0 to 1. Default 0. */
  minScore?: number;
  /** The sentence that words are put into, with `{}` once; the embeddings of several are averaged. Default `"This is a photo of {}."`, as for `classify`. */
  template?: string | readonly string[];
  signal?: AbortSignal;
}

/** A picture that was found. */
export interface Hit {
  id: string;
  /**
   * Words: the probability that the picture shows them, as `classify` gives it; of several terms, that it shows all plus and none of the minus terms. Pictures
   * alone: the cosine, 0 if below, as a picture's likeness to another has no probability. Both together: the words' probability.
   */
  score: number;
  /** The score's log-odds, `ln(score / (1 - score))`: for one text, `exp(logit_scale) * cosine + logit_bias`. For pictures alone, what that formula gives for their cosine. */
  logit: number;
  /** With the query's pictures, where it has any: the mean of their embeddings, less the minus ones. Else the mean over the plus words. */
  cosine: number;
  /** As it was given with the picture, or the file's. */
  modified?: number;
  /** Bytes. */
  size?: number;
}

/** A picture in the index. */
export interface IndexEntry {
  id: string;
  modified?: number;
  size?: number;
}

export interface IndexInfo {
  readonly name: string;
  /** The model that made it: its `info.name`, its `info.dtype`, its `info.fingerprint`. */
  readonly model: string;
  readonly dtype: string;
  readonly fingerprint: string;
  /** Raised whenever the library would embed the same picture otherwise. */
  readonly pipeline: number;
  /** Numbers in an embedding. */
  readonly embeddingSize: number;
  /** Whether it is kept in this browser. */
  readonly kept: boolean;
  /** How it is kept, or why not (no storage, a full disk…), as a sentence. */
  readonly keptReason: string;
  /** Records that were found damaged when it was opened, or since: those pictures aren't found until they are added again. */
  readonly damaged: number;
}

/** An index that is kept in this browser. */
export interface KeptIndex {
  name: string;
  model: string;
  dtype: string;
  fingerprint: string;
  pipeline: number;
  /** Bytes that it takes on the disk. */
  bytes: number;
}

/** An index of pictures. Several pages may have the same one open: one at a time adds to it, the others see what it added. */
export declare class SiglipIndex {
  private constructor();

  /**
   * Opens an index, or begins one. It is kept in the origin private file system under its name and the model's name, fingerprint, dtype and pipeline version; where
   * the browser refuses that, it stays in memory, and `info.keptReason` says why. Damaged records are found by their checksums, and only their pictures are embedded
   * again by the next `add`.
   *
   * Rejects with code `"bad-input"` where there is an index of this name by another model and none by this one: the message says which; `again: true` begins anew. With
   * `"unsupported"` for a model that was fine-tuned for labels of its own.
   * @param classifier the model that embeds pictures and queries. It isn't disposed of with the index
   */
  static open(classifier: SiglipClassifier, options?: OpenOptions): Promise<SiglipIndex>;

  /** What is kept in this browser for pages of this origin, by name. */
  static list(): Promise<KeptIndex[]>;

  /**
   * Removes what is kept under a name, by all models; all indexes without. Waits some seconds while pictures are added to one, and rejects with code `"network"` if
   * they still are.
   * @returns bytes that were freed
   */
  static delete(name?: string): Promise<number>;

  /**
   * What a person typed as a query: words, each `-word` or `-"some words"` after a space as a minus term. Plain words stay one term: `"red car -truck"` looks for a
   * red car that is no truck.
   */
  static parse(text: string): Query;

  readonly info: IndexInfo;
  /** Pictures in it. */
  readonly size: number;

  /**
   * Embeds the pictures that are new or have changed. One that can't be read is listed and stops nothing. Every few pictures what has been done is
   * safe, and may be searched; the page can be closed at any moment, and `add` with the same source goes on there. One `add` runs at a time, in all tabs.
   */
  add(source: IndexSource, options?: AddOptions): Promise<Added>;

  /** Holds `add` after the pictures that are under way, until `resume`. */
  pause(): void;
  resume(): void;
  /** Whether `pause` holds it. */
  readonly paused: boolean;

  /** The best pictures first, exactly: all are compared, and the best ones' scores are of full precision. May be called while `add` runs. */
  search(query: Query, options?: SearchOptions): Promise<Hit[]>;

  /** Pictures in the index, in the order they were added. */
  entries(): Promise<IndexEntry[]>;
  /** Pictures of earlier `add`s that can't be read. */
  unreadable(): Promise<Unreadable[]>;
  /** The embeddings, of unit length, of these pictures; undefined for one that isn't in the index. */
  embeddings(ids: readonly string[]): Promise<(Float32Array | undefined)[]>;

  /**
   * Drops these pictures; ids that aren't there are passed over. While an `add` of this page runs, also while it is paused, that is done between the pictures that it
   * keeps; while one of another tab does, it waits some seconds, and then rejects with code `"network"`.
   * @returns how many there were
   */
  remove(ids: Iterable<string>): Promise<number>;
  /** Drops all pictures, when `remove` would. */
  clear(): Promise<void>;

  /**
   * All of it as a safetensors file: `embeddings` (F32, pictures × embedding size, of unit length), `entries` (U8, JSON in UTF-8: `[{"id", "size", "modified"}, …]`
   * in the same order) and, as metadata, `format`, `model`, `dtype`, `fingerprint`, `pipeline`.
   */
  export(): Promise<Blob>;
  /**
   * Adds the pictures of such a file, those of the same ids taking the places of what was there. Rejects with `"bad-input"` for one of another model, or a damaged one.
   * @returns how many there were
   */
  import(file: Blob | ArrayBuffer | Uint8Array, options?: { signal?: AbortSignal }): Promise<number>;

  /** Called when pictures came or went, also in another tab; a listener of its own replaces it. */
  onchange: (() => void) | null;

  /** Ends its worker and stops an `add` that runs. What is kept stays. Later calls reject with code `"disposed"`. */
  close(): Promise<void>;
}
