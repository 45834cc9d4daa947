/** @jsxImportSource preact */
import { render } from "preact";
import { useState } from "preact/hooks";
import type { LabelScore } from "siglip-web";
import "siglip-web/demo";
import "siglip-web/siglip-classifier";
import type {} from "siglip-web/types/preact";
import { LABELS, tell } from "./told.js";

function App() {
  const [best, setBest] = useState("");
  const hear = ({ detail }: CustomEvent<LabelScore[]>) => { setBest(detail[0]?.label ?? ""); tell(detail); };
  return <>
    <siglip-classifier labels="a cat, a dog" src="ladybug.png" onsiglip-result={hear} />
    <siglip-classifier labels={LABELS} src="ladybug.png" top-k={1} worker={false} onsiglip-result={hear} className="second" />
    <p>{best}</p>
  </>;
}

render(<App />, document.getElementById("app")!);

// What must not pass.
// @ts-expect-error: a number is no list of labels
void <siglip-classifier labels={5} />;
// @ts-expect-error: no such backend
void <siglip-classifier backend="webgl" />;
// @ts-expect-error: no such attribute
void <siglip-classifier label="a cat" />;
