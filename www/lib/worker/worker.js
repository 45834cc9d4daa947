// The module worker: one model per worker, so that the page's main thread never blocks and so that
// ending the worker gives all memory back.
import { Host } from "./host.js";

const host = new Host((message, transfer) => self.postMessage(message, { transfer }));
self.addEventListener("message", (event) => host.receive(event.data));
