import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Kafka } from "kafkajs"
import { expect, test } from "vitest"
import { connectPlainly, makeMortalSockets } from "../src/MortalSockets.ts"
import { expectTakeOver } from "./takeOver.ts"

test("cuts its own connections, refuses new ones, and leaves those of others alone", async () => {
  const server = createServer((socket) => socket.on("error", () => {}))
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  const mortal = makeMortalSockets()
  const open = async (make: typeof connectPlainly) => {
    const connected = Promise.withResolvers<void>()
    const socket = make({ host: "127.0.0.1", port, ssl: {}, onConnect: connected.resolve })
    await connected.promise
    return socket
  }
  const victims = [await open(mortal.socketFactory), await open(mortal.socketFactory)]
  const other = await open(connectPlainly)
  const errors = Promise.all(victims.map((socket) => once(socket, "error")))
  mortal.kill()
  expect(await errors).toHaveLength(2)
  expect(other.destroyed).toBe(false)

  const refused = mortal.socketFactory({ host: "127.0.0.1", port, ssl: {}, onConnect: () => {} })
  const [error] = await once(refused, "error")
  expect(error).toHaveProperty("message", "this client was killed")
  other.destroy()
  server.close()
})

await describeWithKafka("Kafka, when a client's connections are cut,", ({ brokers }) => {
  test("gives its partitions to another when its session is over", { timeout: 60_000 }, () =>
    expectTakeOver({
      brokers,
      socketFactory: connectPlainly,
      partitions: 6,
      createTopic: async (topic) => {
        const admin = new Kafka({ brokers: [...brokers] }).admin()
        await admin.connect()
        await admin.createTopics({ topics: [{ topic, numPartitions: 6 }] })
        await admin.disconnect()
      }
    })
  )
})
