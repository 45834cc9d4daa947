/** Registers the tag `<siglip-classifier model labels template src scores top-k backend dtype worker>`. Importing it does nothing where there is no page (server-side rendering). */
import type { ClassifyOptions, ImageInput, LabelScore, LoadOptions, ModelSource, ProgressEvent, SiglipError, SiglipErrorCode } from "./siglip-web.js";

/**
 * A picture goes in by button, drop, paste, `src` or `image`; the labels' probabilities come out. The model is loaded at the
 * first use, shared by all tags that ask for the same one, and given back when the last of them leaves the page.
 *
 * Every property is an attribute too (`topK` is `top-k`), and may be set before the tag is defined. Properties also take what no attribute can
 * hold: labels with commas in them, several templates, a model's files. `null` stands for the default. Setting again what is equal, such as an array
 * with the same labels that a framework made anew, changes nothing, as with attributes.
 *
 * Style: the custom properties `--siglip-accent`, `--siglip-bar`, `--siglip-line`, `--siglip-error`, `--siglip-color` and
 * `--siglip-background`; the parts `drop`, `preview`, `button`, `hint`, `status`, `stop`, `results`, `result`, `bar`, `label`
 * and `percent`. Light or dark follows `color-scheme`.
 */
export declare class SiglipClassifierElement extends HTMLElement {
  /** The picture shown and classified. Setting one starts; null clears. Not an attribute: `src` is. */
  get image(): ImageInput | null;
  set image(image: ImageInput | null | undefined);
  /** The address of a picture, which becomes `image`. */
  get src(): string | null;
  set src(src: string | null | undefined);
  /** As for `SiglipClassifier.load`; `"demo"` unless given. */
  get model(): ModelSource | null;
  set model(model: ModelSource | null | undefined);
  /**
   * An array, whose labels may hold commas, or one text with commas, semicolons or line ends between labels; null goes back to the attribute.
   * Without any, a model with labels of its own (`info.labels`) shows these.
   */
  get labels(): string[];
  set labels(labels: string | readonly string[] | null | undefined);
  get template(): ClassifyOptions["template"] | null;
  set template(template: ClassifyOptions["template"] | null);
  get scores(): ClassifyOptions["scores"] | null;
  set scores(scores: ClassifyOptions["scores"] | null);
  get topK(): number | null;
  set topK(topK: number | null | undefined);
  get backend(): LoadOptions["backend"] | null;
  set backend(backend: LoadOptions["backend"] | null);
  get dtype(): LoadOptions["dtype"] | null;
  set dtype(dtype: LoadOptions["dtype"] | null);
  /** `false`, or the attribute `worker="false"`: no worker, as for `SiglipClassifier.load`. */
  get worker(): boolean;
  set worker(worker: boolean | "true" | "false" | null | undefined);
  /** What stands in the tag. What is left out is English; null is all of that. */
  get texts(): Texts;
  set texts(texts: Partial<Texts> | null | undefined);
  /** The last result; null while there is none. */
  readonly result: LabelScore[] | null;
}

/** Everything that the tag says; names in braces are replaced. `siglip-web/texts/de` has them in German. */
export interface Texts {
  /** Of numbers: `"en"`, `"de"`, … */
  readonly locale: string;
  /** The file input's accessible name. */
  readonly image: string;
  readonly choose: string;
  readonly drop: string;
  /** What the picture is called, without and with a `{name}`. */
  readonly picture: string;
  readonly named: string;
  /** The list's accessible name. */
  readonly results: string;
  readonly stop: string;
  readonly stopped: string;
  readonly loading: string;
  readonly looking: string;
  /** With `{percent}` and `{megabytes}`. */
  readonly download: string;
  readonly load: string;
  readonly warmup: string;
  /** With `{label}` and `{percent}`. */
  readonly best: string;
  /** The same, where the model is not sure. */
  readonly perhaps: string;
  readonly none: string;
  /** A `{number}` of hundredths. */
  readonly percent: string;
  /** Why nothing arrives, the library's own sentence as `{reason}`. */
  readonly waiting: string;
  /** In place of the library's own messages, by code. */
  readonly errors: { readonly [code in SiglipErrorCode]?: string };
}

export declare const ENGLISH: Texts;

/** What a framework's template may give the tag. */
export interface SiglipClassifierAttributes {
  model?: ModelSource | null;
  labels?: string | readonly string[] | null;
  template?: string | readonly string[] | null;
  src?: string | null;
  image?: ImageInput | null;
  scores?: "sigmoid" | "softmax" | null;
  "top-k"?: number | string | null;
  topK?: number | null;
  backend?: "auto" | "webgpu" | "cpu" | null;
  dtype?: "auto" | "f32" | "f16" | "q8" | "q4" | null;
  worker?: boolean | "true" | "false" | null;
  texts?: Partial<Texts> | null;
}

declare global {
  interface HTMLElementTagNameMap {
    "siglip-classifier": SiglipClassifierElement;
  }
  /** All of them bubble, and leave shadow trees. */
  interface HTMLElementEventMap {
    "siglip-result": CustomEvent<LabelScore[]>;
    "siglip-error": CustomEvent<SiglipError>;
    "siglip-progress": CustomEvent<ProgressEvent>;
  }
}
