// The worker of an index: searching and keeping never block the page, nor wait for the model.
import { port } from "../platform.js";
import { Host } from "./host.js";

const host = new Host((message, transfer) => port.postMessage(message, transfer ?? []));
port.onmessage = (event) => host.receive(event.data);
// It runs: who started it waits no longer than for that.
port.postMessage({});
