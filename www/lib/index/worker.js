// The worker of an index: searching and keeping never block the page, nor wait for the model.
import { port } from "../platform.js";
import { Host } from "./host.js";
// Each is a part of one of those. Named here, all are asked for at once: browsers would learn of them level by level, and wait for the server each time.
import "../client/arguments.js";
import "../error.js";
import "../files/download.js";
import "../files/watch.js";
import "../hash.js";
import "../store/disks.js";
import "../worker/backend.js";
import "../worker/glue.js";
import "../worker/module.js";
import "../worker/threads.js";
import "./disk.js";
import "./keeper.js";
import "./safetensors.js";

const host = new Host((message, transfer) => port.postMessage(message, transfer ?? []));
port.onmessage = (event) => host.receive(event.data);
// It runs: who started it waits no longer than for that.
port.postMessage({});
