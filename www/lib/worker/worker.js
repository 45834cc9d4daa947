// The module worker: one model per worker, so that the page's main thread never blocks and so that
// ending the worker gives all memory back.
import { port } from "../platform.js";
import { Host } from "./host.js";
// Each is a part of one of those. Named here, all are asked for at once: browsers would learn of them level by level, and wait for the server each time.
import "../error.js";
import "../files/disk.js";
import "../files/download.js";
import "../files/node.js";
import "../files/ranges.js";
import "../files/server.js";
import "../files/source.js";
import "../files/watch.js";
import "../hash.js";
import "../store/disks.js";
import "../store/packs.js";
import "../store/stored.js";
import "./backend.js";
import "./glue.js";
import "./load.js";
import "./methods.js";
import "./module.js";
import "./pipelines.js";
import "./threads.js";
import "./tokenizers.js";

const host = new Host((message, transfer) => port.postMessage(message, transfer ?? []));
port.onmessage = (event) => void host.receive(event.data);
// It runs: who started it waits no longer than for that.
port.postMessage({});
