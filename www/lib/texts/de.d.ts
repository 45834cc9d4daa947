import type { Texts } from "../siglip-classifier.js";

export declare const GERMAN: Texts;
