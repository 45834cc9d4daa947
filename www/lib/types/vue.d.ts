/** `<siglip-classifier>` in templates of Vue 3: `import type {} from "siglip-web/types/vue";` once, and `isCustomElement: (tag) => tag === "siglip-classifier"`. */
import type { DefineComponent } from "vue";
import type { SiglipClassifierAttributes } from "../siglip-classifier.js";
import type { LabelScore, ProgressEvent, SiglipError } from "../siglip-web.js";

declare module "vue" {
  interface GlobalComponents {
    "siglip-classifier": DefineComponent<SiglipClassifierAttributes & {
      "onSiglip-result"?: (event: CustomEvent<LabelScore[]>) => void;
      "onSiglip-error"?: (event: CustomEvent<SiglipError>) => void;
      "onSiglip-progress"?: (event: CustomEvent<ProgressEvent>) => void;
    }>;
  }
}
