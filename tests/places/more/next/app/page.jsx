"use client";
import { useEffect } from "react";

export default function Page() {
  // The page's script of all the projects; it wants the tag to be there.
  useEffect(() => void import("../../../app/main.js"), []);
  return <siglip-classifier labels="a ladybug, a teapot, a penguin" src="ladybug.png"></siglip-classifier>;
}
