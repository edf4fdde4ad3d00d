// mqtt.js asks the daemon `test` through the broker on a port of this host.
//
//     mqtt_js_client.js PORT
"use strict";

const assert = require("node:assert");
const mqtt = require("mqtt");

const url = `mqtt://127.0.0.1:${process.argv[2]}`;

setTimeout(() => {
  console.error("mqtt.js: no answer in 20 s");
  process.exit(1);
}, 20_000).unref();

/** The next message. */
const next = (client) =>
  new Promise((resolve) => {
    client.once("message", (topic, payload, packet) => resolve({ topic, payload, packet }));
  });

async function askInV5() {
  const client = await mqtt.connectAsync(url, { protocolVersion: 5 });
  await client.subscribeAsync("mqttjs/answers", { qos: 1 });
  for (const qos of [0, 1, 2]) {
    const correlationData = Buffer.from([0, qos, 255]);
    const answer = next(client);
    await client.publishAsync("moed/test/models/intent/infer", JSON.stringify({ text: "hello" }), {
      qos,
      properties: {
        responseTopic: "mqttjs/answers",
        correlationData,
        contentType: "application/json",
        messageExpiryInterval: 10,
      },
    });
    const { payload, packet } = await answer;
    assert.deepStrictEqual(packet.properties.correlationData, correlationData);
    assert.strictEqual(packet.properties.userProperties.status, "200");
    assert.strictEqual(JSON.parse(payload).answer.text, "hello");
  }
  await client.endAsync();
}

async function askInV311() {
  const client = await mqtt.connectAsync(url, { protocolVersion: 4 });
  await client.subscribeAsync("moed/test/models/intent/result/mqttjs", { qos: 1 });
  const answer = next(client);
  const body = JSON.stringify({ text: "hello", id: "7" });
  await client.publishAsync("moed/test/models/intent/infer/mqttjs", body, { qos: 1 });
  const { payload } = await answer;
  assert.strictEqual(JSON.parse(payload).id, "7");
  await client.endAsync();
}

askInV5()
  .then(askInV311)
  .then(() => console.log("ok"));
