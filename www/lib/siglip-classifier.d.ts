/** Registers the tag `<siglip-classifier model labels template backend dtype>`. */
import type { ImageInput, LabelScore, ProgressEvent, SiglipError } from "./siglip-web.js";

/**
 * A picture goes in by button, drop, paste or `image`; the labels' probabilities come out. The model is loaded at the
 * first use, shared by all tags that ask for the same one, and given back when the last of them leaves the page.
 *
 * Attributes: `model` (as for `SiglipClassifier.load`; `"demo"` unless given), `labels` (between commas or line ends),
 * `template`, `backend`, `dtype`.
 * Style: the custom properties `--siglip-accent`, `--siglip-bar`, `--siglip-line`, `--siglip-error`, `--siglip-color` and
 * `--siglip-background`; the parts `drop`, `preview`, `button`, `hint`, `status`, `stop`, `results`, `result`, `bar`, `label`
 * and `percent`. Light or dark follows `color-scheme`.
 */
export declare class SiglipClassifierElement extends HTMLElement {
  /** The picture shown and classified. Setting one starts; null clears. */
  image: ImageInput | null;
  /** The labels of the attribute, or those set here, which may hold commas. */
  labels: string[];
  /** The last result; null while there is none. */
  readonly result: LabelScore[] | null;
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
