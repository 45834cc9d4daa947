import { hydrateRoot } from "react-dom/client";
import { useEffect, useState } from "react";
import type { LabelScore } from "siglip-web";
import "siglip-web/demo";
import "siglip-web/siglip-classifier";
import type {} from "siglip-web/types/react";
import { LABELS, tell } from "./told.js";

function never() {
  throw new Error("React listens to a tag that it hydrates: the README need not warn any more");
}

function App() {
  const [here, setHere] = useState(false);
  const [best, setBest] = useState("");
  useEffect(() => setHere(true), []);
  const hear = ({ detail }: CustomEvent<LabelScore[]>) => { setBest(detail[0]?.label ?? ""); tell(detail); };
  return <>
    <siglip-classifier labels="a cat" src="ladybug.png" onsiglip-result={never} />
    <siglip-classifier labels={LABELS} src="ladybug.png" />
    {here && <siglip-classifier labels={["a ladybug, red", "a teapot"]} src="ladybug.png" onsiglip-result={hear} />}
    <p>{best}</p>
  </>;
}

// What a server made of it is in hydrated.html.
hydrateRoot(document.getElementById("app")!, <App />);
