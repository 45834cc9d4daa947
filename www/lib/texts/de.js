// The tag's texts in German: document.querySelector("siglip-classifier").texts = GERMAN. Other languages are made like this one.

/** @type {import("../siglip-classifier.d.ts").Texts} */
export const GERMAN = Object.freeze({
  locale: "de",
  image: "Bild",
  choose: "Bild auswählen",
  drop: "oder hierher ziehen oder einfügen",
  picture: "Das Bild",
  named: "Das Bild {name}",
  results: "Ergebnisse",
  stop: "Abbrechen",
  stopped: "Abgebrochen.",
  loading: "Das Modell wird geladen …",
  looking: "Das Bild wird betrachtet …",
  download: "Herunterladen: {percent} von {megabytes} MB …",
  load: "Das Modell wird geladen: {percent} …",
  warmup: "Gleich bereit …",
  best: "Am besten passt: {label}, {percent}.",
  perhaps: "Vielleicht: {label}, {percent}.",
  none: "Nichts davon passt.",
  percent: "{number} %",
  waiting: "Es wird gewartet: {reason}",
  errors: {
    "bad-input": "So lässt sich das nicht vergleichen. Bitte die Begriffe prüfen.",
    "bad-image": "Das Bild lässt sich nicht lesen. Bitte ein anderes wählen.",
    "bad-model": "Das Modell ist unvollständig oder beschädigt.",
    network: "Etwas konnte nicht geladen werden. Bitte die Verbindung prüfen und noch einmal versuchen.",
    unsupported: "Dieser Browser kann das nicht.",
    "out-of-memory": "Der Speicher reicht nicht. Bitte andere Tabs schließen.",
    "device-lost": "Die Berechnung ist abgebrochen. Bitte noch einmal versuchen.",
    disposed: "Das Modell wurde inzwischen entladen. Bitte noch einmal versuchen.",
  },
});
