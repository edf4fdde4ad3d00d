// Node-RED runs the flow of examples/node-red.json, with the daemon `test` and the broker on a port
// of this host, without its editor.
//
//     node_red_flow.js PORT
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");
const RED = require("node-red");

const flow = fs
  .readFileSync(path.join(__dirname, "../../examples/node-red.json"), "utf8")
  .replace('"port": "1883"', `"port": "${process.argv[2]}"`)
  .replace('"broker": "localhost"', '"broker": "127.0.0.1"')
  .replace("moed/hub/", "moed/test/");

const userDir = fs.mkdtempSync(path.join(os.tmpdir(), "moed-node-red-"));
fs.writeFileSync(path.join(userDir, "flows.json"), flow);

const end = (status, text) => {
  fs.rmSync(userDir, { recursive: true, force: true });
  console.log(text);
  process.exit(status);
};
setTimeout(() => end(1, "Node-RED: no answer in 60 s"), 60_000);

RED.init(http.createServer(), {
  userDir,
  flowFile: "flows.json",
  httpAdminRoot: false,
  httpNodeRoot: false,
  logging: { console: { level: "error", metrics: false, audit: false } },
});

// What reaches the debug nodes.
RED.hooks.add("onReceive", ({ msg, destination }) => {
  if (destination.id === "moed-error") {
    end(1, `Node-RED: an error: ${JSON.stringify(msg.payload)}`);
  }
  if (destination.id === "moed-answer") {
    assert.strictEqual(msg.payload.answer.text, "turn on the kitchen light");
    assert.ok(msg.correlationData.length > 0);
    end(0, "ok");
  }
});

// The button is pressed until both broker nodes are connected and the answer comes.
RED.start().then(() => {
  setInterval(() => {
    const button = RED.nodes.getNode("moed-sentence");
    if (button) button.receive({ payload: "turn on the kitchen light" });
  }, 500);
});
