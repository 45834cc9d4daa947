// The module worker: one model per worker, so that the page's main thread never blocks and so that
// ending the worker gives all memory back.
import { port } from "../platform.js";
import { Host } from "./host.js";

const host = new Host((message, transfer) => port.postMessage(message, transfer ?? []));
port.onmessage = (event) => void host.receive(event.data);
// It runs: who started it waits no longer than for that.
port.postMessage({});
