import { mount } from "svelte";
import "siglip-web/demo";
import "siglip-web/siglip-classifier";
import type {} from "siglip-web/types/svelte";
import App from "./App.svelte";

mount(App, { target: document.getElementById("app")! });
