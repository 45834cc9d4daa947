/** `<siglip-classifier>` in JSX of Preact: `import type {} from "siglip-web/types/preact";` once, in any file. */
import type { HTMLAttributes } from "preact";
import type { SiglipClassifierAttributes, SiglipClassifierElement } from "../siglip-classifier.js";
import type { LabelScore, ProgressEvent, SiglipError } from "../siglip-web.js";

declare module "preact" {
  namespace JSX {
    interface IntrinsicElements {
      "siglip-classifier": HTMLAttributes<SiglipClassifierElement> & SiglipClassifierAttributes & {
        "onsiglip-result"?: (event: CustomEvent<LabelScore[]>) => void;
        "onsiglip-error"?: (event: CustomEvent<SiglipError>) => void;
        "onsiglip-progress"?: (event: CustomEvent<ProgressEvent>) => void;
      };
    }
  }
}
