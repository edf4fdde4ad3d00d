// Asks over the Unix socket SOCKET with nothing but Node's own library.
//
//     node tests/clients/node.mjs SOCKET
import assert from 'node:assert/strict'
import http from 'node:http'

const socketPath = process.argv[2]
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 })

function ask(method, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, agent, method, path, headers, timeout: 20000 }, (response) => {
      const parts = []
      response.on('data', (part) => parts.push(part))
      response.on('end', () => {
        const { statusCode: status, headers } = response
        resolve({ status, headers, body: Buffer.concat(parts) })
      })
    })
    request.on('timeout', () => request.destroy(new Error('no answer')))
    request.on('error', reject)
    request.end(body)
  })
}

const infer = (model, body) => ask('POST', `/v2/models/${model}/infer`, JSON.stringify(body))

const live = await ask('GET', '/v2/health/live')
assert.deepEqual(JSON.parse(live.body), { live: true })

// Fifty at once over four connections, each with its own answer.
const texts = Array.from({ length: 50 }, (_, at) => `light ${at}`)
const answers = await Promise.all(texts.map((text) => infer('intent', { text })))
assert.deepEqual(answers.map(({ body }) => JSON.parse(body).answer.text), texts)

const doubled = await infer('double', { x: [[1, 2, 3, 4], [5, 6, 7, 8]] })
assert.deepEqual(JSON.parse(doubled.body).y, [[2, 4, 6, 8], [10, 12, 14, 16]])

// Binary data, both ways.
const values = new Float32Array([0.5, 1.5, -2, 4])
const header = Buffer.from(JSON.stringify({
  inputs: [{ name: 'x', shape: [1, 4], datatype: 'FP32', parameters: { binary_data_size: 16 } }],
  outputs: [{ name: 'y', parameters: { binary_data: true } }],
}))
const length = { 'Inference-Header-Content-Length': header.length }
const packed = Buffer.concat([header, Buffer.from(values.buffer)])
const binary = await ask('POST', '/v2/models/double/infer', packed, length)
assert.equal(binary.status, 200, binary.body.toString())
const start = Number(binary.headers['inference-header-content-length'])
const numbers = Array.from({ length: 4 }, (_, at) => binary.body.readFloatLE(start + 4 * at))
assert.deepEqual(numbers, [1, 3, -4, 8])

const wrong = await infer('intent', { txt: 'on' })
assert.equal(wrong.status, 400)
assert.match(JSON.parse(wrong.body).error, /takes: text/)

// A request that is given up takes nothing from the next.
const givenUp = new Promise((resolve) => {
  const request = http.request({ socketPath, method: 'POST', path: '/v2/models/slow/infer' })
  request.on('error', resolve)
  request.end('{"text": "on"}')
  setTimeout(() => request.destroy(), 10)
})
await givenUp
assert.equal((await infer('intent', { text: 'on' })).status, 200)
agent.destroy()
