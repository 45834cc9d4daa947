/** What the files of the page give each other, and what browsers offer beyond TypeScript's lists. */
import type { LabelScore, ModelSource, SiglipClassifier } from "../lib/siglip-web.js";

/** As it comes in by any of the page's doors. */
export type Picture = {
  blob: Blob;
  name: string;
  /** The file's name, if it is a sample. */
  sample?: string;
  /** That a sample suggests. */
  labels?: string[];
};

/** The picture that is asked about, or will be. */
export type Subject = Picture & {
  /** Of an object URL. */
  url: string;
  /** How this browser can show it; `false`: it can't; missing while that isn't known. */
  viewable?: { wide: boolean } | false;
  /** A sample's labels that were taken out of the box for it. */
  forgotten?: string;
};

/** A model to load. */
export type Choice = {
  id: string;
  source: ModelSource;
  /** As sentences call it. */
  title: () => string;
  /** Said before the first answer. */
  notice?: Notice;
  /** Although there is no room to keep it. */
  anyway?: boolean;
};

/** What the page says: asked again when its language changes. */
export type Message = () => string;

/** An error that is said before an answer, and what the button beside it does. */
export type Notice = { text: Message; retry?: () => void; retryText?: Message };

/** An answer: what was asked, and what came of it. Times in milliseconds. */
export type Answer = {
  classifier: SiglipClassifier;
  picture: Subject;
  labels: string[];
  template: string;
  scores: LabelScore[];
  pictureTime: number;
  labelsTime: number;
  pictureKnown: boolean;
  labelsKnown: boolean;
};

/** A line of the results. `alone`: the label's own probability, beside a softmax share. */
export type Row = { label: string; score: number; alone?: number };

/** A work that a person may stop. */
export type Job = AbortController & { stopped?: boolean };

declare global {
  interface FileSystemDirectoryHandle {
    values(): AsyncIterableIterator<FileSystemFileHandle | FileSystemDirectoryHandle>;
  }
  interface FileSystemHandle {
    /** Asks the person whether the page may go on. Chromium only. */
    requestPermission?(descriptor: { mode: "read" | "readwrite" }): Promise<PermissionState>;
  }
  interface DataTransferItem {
    /** Chromium only. */
    getAsFileSystemHandle?(): Promise<FileSystemHandle | null>;
  }
  interface Navigator {
    /** Gigabytes, roughly. Chromium only. */
    readonly deviceMemory?: number;
  }
  interface Window {
    /** Chromium only. */
    readonly showDirectoryPicker?: (options?: { id?: string; mode?: "read" | "readwrite" }) => Promise<FileSystemDirectoryHandle>;
    readonly trustedTypes?: {
      createPolicy(name: string, rules: { createScriptURL(address: string): string; createHTML(text: string, type: string, sink: string): string }): unknown;
    };
    /** Files that the system opens with the installed page. Chromium only. */
    readonly launchQueue?: { setConsumer(take: (launch: { files?: readonly FileSystemFileHandle[] }) => void): void };
  }
}
