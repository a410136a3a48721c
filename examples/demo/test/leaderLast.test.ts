import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"
import { expect, test } from "vitest"
import { leaderLast } from "../src/internal/leaderLast.ts"
import { connectPlainly } from "../src/MortalSockets.ts"

const string = (value: string): Buffer => {
  const text = Buffer.from(value)
  const length = Buffer.alloc(2)
  length.writeInt16BE(text.length)
  return Buffer.concat([length, text])
}

const int16 = (value: number): Buffer => {
  const buffer = Buffer.alloc(2)
  buffer.writeInt16BE(value)
  return buffer
}

const int32 = (value: number): Buffer => {
  const buffer = Buffer.alloc(4)
  buffer.writeInt32BE(value)
  return buffer
}

interface SyncGroup {
  readonly apiKey?: number
  readonly version: number
  readonly correlation: number
  readonly assignments: number
}

/** As Kafka's protocol guide lays it out; the assignments themselves don't matter here. */
const request = ({ apiKey = 14, assignments, correlation, version }: SyncGroup): Buffer => {
  const missingString = int16(-1)
  const body = Buffer.concat([
    int16(apiKey),
    int16(version),
    int32(correlation),
    string("client"),
    string("group"),
    int32(1),
    string("member"),
    ...(version >= 3 ? [missingString] : []),
    int32(assignments)
  ])
  return Buffer.concat([int32(body.length), body])
}

const correlations = (received: Buffer): Array<number> => {
  const found: Array<number> = []
  for (let at = 0; at < received.length; at += 4 + received.readInt32BE(at))
    found.push(received.readInt32BE(at + 8))
  return found
}

test("a leader's assignment arrives after what was sent later, and nothing else is held back", async () => {
  const sent = [
    request({ version: 3, correlation: 1, assignments: 2 }),
    request({ version: 0, correlation: 2, assignments: 1 }),
    request({ version: 3, correlation: 3, assignments: 0 }),
    request({ version: 3, correlation: 4, assignments: 2, apiKey: 11 })
  ]
  const size = Buffer.concat(sent).length
  const received = Promise.withResolvers<Buffer>()
  const server = createServer((socket) => {
    let all = Buffer.alloc(0)
    socket.on("data", (data) => {
      all = Buffer.concat([all, data])
      if (all.length === size) received.resolve(all)
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  const socket = leaderLast(connectPlainly)({ host: "127.0.0.1", port, ssl: {}, onConnect: () => {} })
  await once(socket, "connect")
  for (const buffer of sent) socket.write(buffer, "binary")
  expect(correlations(await received.promise)).toEqual([3, 4, 1, 2])
  socket.destroy()
  server.close()
})
