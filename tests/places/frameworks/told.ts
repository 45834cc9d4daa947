import type { LabelScore } from "siglip-web";

/** A label may hold a comma, and the list be one that nobody may change. */
export const LABELS = ["a ladybug, red", "a teapot"] as const;

/** For the test: the results of the page's two tags. */
export const results: LabelScore[][] = [];
Object.assign(globalThis, { results });

export function tell(result: readonly LabelScore[]): void {
  results.push([...result]);
}
