/** `<siglip-classifier>` in JSX of React 19 and newer: `import type {} from "siglip-web/types/react";` once, in any file. */
import type { DetailedHTMLProps, HTMLAttributes } from "react";
import type { SiglipClassifierAttributes, SiglipClassifierElement } from "../siglip-classifier.js";
import type { LabelScore, ProgressEvent, SiglipError } from "../siglip-web.js";

declare module "react" {
  namespace JSX {
    interface IntrinsicElements {
      "siglip-classifier": DetailedHTMLProps<HTMLAttributes<SiglipClassifierElement>, SiglipClassifierElement> & SiglipClassifierAttributes & {
        "onsiglip-result"?: (event: CustomEvent<LabelScore[]>) => void;
        "onsiglip-error"?: (event: CustomEvent<SiglipError>) => void;
        "onsiglip-progress"?: (event: CustomEvent<ProgressEvent>) => void;
      };
    }
  }
}
