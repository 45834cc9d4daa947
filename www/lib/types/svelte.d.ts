/** `<siglip-classifier>` in templates of Svelte 5: `import type {} from "siglip-web/types/svelte";` once, in any file. */
import type { HTMLAttributes } from "svelte/elements";
import type { SiglipClassifierAttributes, SiglipClassifierElement } from "../siglip-classifier.js";
import type { LabelScore, ProgressEvent, SiglipError } from "../siglip-web.js";

declare module "svelte/elements" {
  interface SvelteHTMLElements {
    "siglip-classifier": HTMLAttributes<SiglipClassifierElement> & SiglipClassifierAttributes & {
      "onsiglip-result"?: (event: CustomEvent<LabelScore[]>) => void;
      "onsiglip-error"?: (event: CustomEvent<SiglipError>) => void;
      "onsiglip-progress"?: (event: CustomEvent<ProgressEvent>) => void;
    };
  }
}
